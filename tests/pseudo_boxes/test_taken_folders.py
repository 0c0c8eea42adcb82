"""Step 2 into a folder that holds something: the same run, another, or files of unknown origin."""

import json

import pytest
from mmpretrain.registry import MODELS

from dap.pseudo_boxes import PseudoBoxSettings
from dap.testing import draw_image, make_class_folders, write_image
from tests.support.planted import model_config, planted_state
from tests.support.planted_runs import generate, tree


def test_finished_run_is_kept_and_another_refused(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    first, _ = generate(root, tmp_path / "out")
    before = (tmp_path / "out" / "annotations.json").stat().st_mtime_ns
    again, _ = generate(root, tmp_path / "out")
    assert again == first
    with pytest.raises(ValueError, match=r"holds another run.*settings\.rule: earlier 'paper'"):
        generate(root, tmp_path / "out", settings=PseudoBoxSettings((128,), True, (0.3, 0.5),
                                                                     rule="release"))  # fmt: skip
    write_image(root / "red" / "new.jpg", draw_image((64, 64), [], []))
    with pytest.raises(ValueError, match=r"image_list\.count: earlier 3, now 4"):
        generate(root, tmp_path / "out")
    assert (tmp_path / "out" / "annotations.json").stat().st_mtime_ns == before


def test_normalisation_is_part_of_the_run(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    generate(root, tmp_path / "out")
    model = MODELS.build(model_config(data_preprocessor={"mean": [9.0] * 3, "std": [2.0] * 3}))
    model.load_state_dict(planted_state())
    with pytest.raises(ValueError, match=r"another run.*weights_sha256"):
        generate(root, tmp_path / "out", model=model)


@pytest.mark.parametrize("name", ["annotations.json", "summary.json", "shards"])
def test_files_of_unknown_origin_are_not_overwritten(tmp_path, name):
    root = make_class_folders(tmp_path / "images", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{name} exists without a manifest\.json"):
        generate(root, tmp_path / "out")
    assert tree(tmp_path / "out") == {name: b"mine"}


@pytest.mark.parametrize("gone", ["summary.json", "annotations.json", "manifest.json's shards"])
def test_killed_before_the_end_is_run_again(tmp_path, gone):
    root = make_class_folders(tmp_path / "images", 1)
    out = tmp_path / "out"
    generate(root, out)
    before = tree(out)
    if gone in before:
        (out / gone).unlink()
    else:
        manifest = json.loads(before["manifest.json"])
        del manifest["shards"]
        (out / "manifest.json").write_text(json.dumps(manifest))
    left = tree(out)
    with pytest.raises(ValueError, match=r"holds another run.*settings\.thresholds"):
        generate(root, out, settings=PseudoBoxSettings((128,), rule="paper"))
    assert tree(out) == left
    generate(root, out)
    assert tree(out) == before


def test_begun_and_come_to_nothing_is_no_run(tmp_path):
    root = make_class_folders(tmp_path / "images", 1)
    generate(root, tmp_path / "out")
    for path in (tmp_path / "out" / "shards").iterdir():
        path.unlink()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    del manifest["shards"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    summary, _ = generate(root, tmp_path / "out", settings=PseudoBoxSettings((128,), rule="paper"))
    assert summary["settings"]["thresholds"] == [0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("content", ["no json", "{}", "[]", '{"format": "DAP pseudo boxes, 1"}'])
def test_foreign_manifest_is_left_alone(tmp_path, content):
    root = make_class_folders(tmp_path / "images", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is not what Step 2 writes"):
        generate(root, tmp_path / "out")
    assert tree(tmp_path / "out") == {"manifest.json": content.encode()}
