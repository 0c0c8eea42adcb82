"""Runs derived from one that kept every box, against runs that computed their maps."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmpretrain.datasets import CustomDataset, MultiLabelDataset

from dap.pseudo_boxes import (
    Execution,
    PseudoBoxSettings,
    PseudoBoxStore,
    generate_pseudo_boxes,
    select,
    select_boxes,
)
from dap.pseudo_boxes.records import FLAT, NOTHING_ABOVE
from dap.runs.verdict import NO_LABEL
from dap.testing import draw_image, make_class_folders, write_image
from tests.support import stores
from tests.support.maps import clouds
from tests.support.planted import planted_classifier
from tests.support.planted_runs import tree
from tests.support.stores import interrupted_writing
from tests.support.zoo import zoo_run

TAUS = (0.2, 0.3, 0.4, 0.5)
NMS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, None)


@pytest.fixture
def dataset(tmp_path):
    """Images of no, one and several classes, ties, a constant one and two that cannot be read."""
    images = {f"cloud {i}.png": (clouds(i, (96 + 9 * i, 130)), [i % 3]) for i in range(5)}
    twins = draw_image((128, 192), [(16, 32, 80, 96), (112, 32, 176, 96)], ["red", "red"])
    images["twins.png"] = twins, [2]
    images["gone.png"] = None, [1]
    images["wölkchen.png"] = clouds(7, (128, 150)), [0, 1, 2]
    images["plain.png"] = draw_image((128, 128), [], []), [0]
    images["none.png"] = clouds(8, (128, 150)), []
    images["cut.png"] = None, [0, 2]
    images["last.png"] = clouds(9, (131, 97)), [2, 0]
    listed = []
    for name, (image, labels) in images.items():
        listed.append({"img_path": name, "gt_label": labels})
        if image is not None:
            write_image(tmp_path / "images" / name, image)
    (tmp_path / "images" / "cut.png").write_bytes(b"\x89PNG")
    listing = {"metainfo": {"classes": ["blue", "green", "red"]}, "data_list": listed}
    (tmp_path / "list.json").write_text(json.dumps(listing))
    return MultiLabelDataset(data_root=str(tmp_path), ann_file="list.json", data_prefix="images")


@pytest.fixture
def generate(dataset, tmp_path):
    """Make a run by computing its maps; return its folder."""
    model = planted_classifier()

    def run(name, thresholds=TAUS, nms_iou=None, rule="paper", of=dataset):
        settings = PseudoBoxSettings((112, 160), True, thresholds, nms_iou, rule)
        execution = Execution(num_workers=0, shard_size=5)
        generate_pseudo_boxes(model, of, tmp_path / name, settings, "weights.pth", execution)
        return tmp_path / name

    return run


@pytest.fixture
def source(generate):
    return generate("source")


def record(name: str, boxes: list[list[float]]) -> dict:
    """An image of 100 x 90 pixels; the class is right where it has boxes."""
    reason = {} if boxes else {"reason": "it is empty"}
    size = {"height": 100, "width": 90}
    return {"file_name": name, **size, "boxes": boxes, "top1": bool(boxes), **reason}


def write_store(folder: Path, records: list[dict], settings: dict | None = None) -> None:
    """A store of one shard, by default of a run of two thresholds without NMS."""
    if settings is None:
        settings = PseudoBoxSettings(thresholds=(0.2, 0.4), nms_iou=None).as_json()
    stores.write_store(folder, records, [{"id": 1, "name": "blue"}], 64, settings)


def contents(folder: Path) -> tuple[dict[str, bytes], dict]:
    """All files but the summary, by their paths; and the summary."""
    files = tree(folder)
    return files, json.loads(files.pop("summary.json"))


def times(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("rule", ["paper", "release", "extent"])
def test_derived_run_is_the_direct_run(generate, tmp_path, rule):
    """Tables A1 and A2: each threshold alone, all at each NMS; subsets, one in another order."""
    taus = (0.6, 0.9, 1.2, 1.4) if rule == "extent" else TAUS
    source = generate("source", taus, rule=rule)
    cases = [((tau,), nms) for tau in taus for nms in (0.8, None)]
    first, second, third, fourth = taus
    cases += [(taus, nms) for nms in NMS]
    cases += [((fourth, first, second), 0.6), ((third, second), None)]
    found = {}
    for number, (thresholds, nms_iou) in enumerate(cases):
        direct = generate(f"direct{number}", thresholds, nms_iou, rule)
        returned = select_boxes(source, tmp_path / f"derived{number}", thresholds, nms_iou)
        files, summary = contents(tmp_path / f"derived{number}")
        expected_files, expected = contents(direct)
        assert files == expected_files, (thresholds, nms_iou)
        assert summary == returned
        assert summary.pop("derived_from") == contents(source)[1]["settings"]
        assert summary == expected, (thresholds, nms_iou)
        assert [failure["file_name"] for failure in summary["failed"]] == ["gone.png", "cut.png"]
        found[thresholds, nms_iou] = summary["merged"]
    by_nms = [found[taus, nms]["boxes"] for nms in NMS]
    assert by_nms == sorted(by_nms)
    assert len(set(by_nms)) >= 5  # else the cases would not tell one NMS from another
    assert len({found[(tau,), 0.8]["mean_width"] for tau in taus}) == 4


def test_defaults_are_all_thresholds_and_the_papers_nms(generate, source, tmp_path):
    select_boxes(source, tmp_path / "derived")
    direct = generate("direct", nms_iou=0.8)
    assert contents(tmp_path / "derived")[0] == contents(direct)[0]


def test_images_without_boxes_keep_their_reason(generate, source, tmp_path):
    """Of the highest threshold alone, and of one that an image has no box at."""
    expected = {"plain.png": FLAT, "none.png": NO_LABEL}
    for name, folder in (("source", source), ("high", tmp_path / "high")):
        if name == "high":
            select_boxes(source, folder, (0.5,), 0.8)
        store = PseudoBoxStore(folder)
        found = {shard.file_name(r): why for shard in store.shards for r, why in shard.reasons()}
        assert {name: found[name] for name in expected} == expected
        assert set(found) == {*expected, "gone.png", "cut.png"}
    assert contents(tmp_path / "high")[1]["without_boxes"] == {NO_LABEL: 1, FLAT: 1}


def test_image_without_a_box_at_the_chosen_threshold(tmp_path):
    box = [1.25, 2, 30.5, 40.01]
    write_store(tmp_path / "source", [record("a.png", [[*box, 0, 1]]), record("b.png", [])])
    summary = select_boxes(tmp_path / "source", tmp_path / "out", (0.2,))
    assert summary["without_boxes"] == {"it is empty": 1, NOTHING_ABOVE: 1}
    assert summary["merged"]["boxes"] == 0
    again = select_boxes(tmp_path / "source", tmp_path / "other", (0.4, 0.2))
    assert again["merged"]["boxes"] == 1
    shard = PseudoBoxStore(tmp_path / "other").shards[0]
    found, labels, thresholds = shard.boxes_of(0)
    assert (found.tolist(), labels.tolist(), thresholds.tolist()) == ([box], [0], [0])
    assert summary["top1"] == 0.5  # as the shard of the source has it


def test_progress_ends_at_its_total(source, tmp_path, monkeypatch):
    """12 images, of which 2 failed, in 3 shards; one of those is there already."""
    made = []

    class Spied(select.Progress):
        def close(self):
            made.append((self.done, self.share, self.total))
            return super().close()

    monkeypatch.setattr(select, "Progress", Spied)
    summary = select_boxes(source, tmp_path / "out")
    assert (summary["images"], summary["images_without_boxes"]) == (10, 2)
    next((tmp_path / "out" / "shards").glob("00001-*")).unlink()
    select_boxes(source, tmp_path / "out")
    assert made == [(12, 12, 12), (5, 5, 5)]


@pytest.mark.parametrize("lost", ["summary.json", "annotations.json", "shards/00002-*"])
def test_killed_run_is_taken_up(source, tmp_path, lost):
    out = tmp_path / "out"
    select_boxes(source, out, (0.3,), 0.8)
    before = contents(out)
    (path,) = out.glob(lost)
    path.unlink()
    with pytest.raises(ValueError, match=r"settings\.nms_iou: earlier 0\.8, now 0\.7"):
        select_boxes(source, out, (0.3,), 0.7)
    select_boxes(source, out, (0.3,), 0.8)
    assert contents(out) == before


def test_killed_in_the_middle_goes_on_with_the_missing_shards(source, tmp_path):
    out, expected = tmp_path / "out", tmp_path / "expected"
    select_boxes(source, expected)
    with interrupted_writing(2):
        select_boxes(source, out)
    with pytest.raises(ValueError, match="not finished"):
        PseudoBoxStore(out)
    times_of_shards = times(out / "shards")
    select_boxes(source, out)
    assert times(out / "shards")[:2] == times_of_shards
    assert contents(out) == contents(expected)


def test_two_processes_do_not_write_one_folder(source, tmp_path):
    script = (
        "import sys; from dap.files import locked; from pathlib import Path\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    holding = [sys.executable, "-c", script, str(tmp_path / "out" / ".lock")]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match="is being written by another process"):
            select_boxes(source, tmp_path / "out")
        process.communicate(b"\n")
    select_boxes(source, tmp_path / "out")
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_derived_run_without_nms_is_a_source(generate, source, tmp_path):
    select_boxes(source, tmp_path / "two", (0.3, 0.5), None)
    select_boxes(tmp_path / "two", tmp_path / "one", (0.5,), 0.7)
    direct = generate("direct", (0.5,), 0.7)
    assert contents(tmp_path / "one")[0] == contents(direct)[0]
    assert contents(tmp_path / "one")[1]["derived_from"]["thresholds"] == [0.3, 0.5]


def test_run_without_a_box(generate, tmp_path):
    for name in ("blue", "green", "red"):
        write_image(tmp_path / "plain" / name / "x.png", draw_image((64, 64), [], []))
    plain = CustomDataset(data_root=str(tmp_path / "plain"))
    select_boxes(generate("source", of=plain), tmp_path / "derived", (0.4,), 0.5)
    files, summary = contents(tmp_path / "derived")
    assert files == contents(generate("direct", (0.4,), 0.5, of=plain))[0]
    assert (summary["images"], summary["images_without_boxes"]) == (3, 3)


def test_finished_run_is_kept_and_another_refused(generate, source, tmp_path):
    out = tmp_path / "out"
    first = select_boxes(source, out, (0.3,), 0.8)
    before = times(out)
    assert select_boxes(source, out, (0.3,), 0.8) == first
    assert generate("out", (0.3,), 0.8) == out  # the same run, were its maps computed
    with pytest.raises(
        ValueError, match=r"holds another run.*settings\.nms_iou: earlier 0\.8, now 0\.7"
    ):
        select_boxes(source, out, (0.3,), 0.7)
    assert times(out) == before
    names = ["annotations.json", "manifest.json", "shards", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thresholds": (0.2, 0.6)}, r"boxes of \[0\.2, 0\.3, 0\.4, 0\.5\], found \[0\.6\]"),
        ({"thresholds": ()}, "thresholds: expected values"),
        ({"thresholds": (0.2, 0.2)}, "thresholds: expected each once"),
        ({"thresholds": 0.2}, "thresholds: expected a list"),
        ({"nms_iou": 0}, r"nms_iou: expected a value in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_derived(source, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        select_boxes(source, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_source_with_nms_is_refused_with_the_cure(generate, tmp_path):
    source = generate("merged", nms_iou=0.8)
    with pytest.raises(ValueError, match=r"NMS at IoU 0\.8.*pseudo_boxes\.nms_iou=None"):
        select_boxes(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_source_is_not_overwritten(source, monkeypatch):
    before = contents(source)
    monkeypatch.chdir(source.parent)
    for out in (source, Path("source"), source / ".." / "source"):
        with pytest.raises(ValueError, match="is the source itself"):
            select_boxes(source, out)
    assert contents(source) == before


def unfinished(source):
    manifest = json.loads((source / "manifest.json").read_text())
    del manifest["shards"]
    (source / "manifest.json").write_text(json.dumps(manifest))


def changed(source):
    text = (source / "manifest.json").read_text()
    (source / "manifest.json").write_text(text.replace('"paper"', '"release"'))


def flipped(source):
    path = sorted((source / "shards").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "nowhere": (shutil.rmtree, "source holds no pseudo boxes"),
    "of an older version": (
        lambda source: (source / "manifest.json").unlink(),
        r"no manifest\.json there.*tools/convert_annotations\.py",
    ),
    "unfinished": (unfinished, "is not finished"),
    "no JSON": (
        lambda source: (source / "manifest.json").write_text("x"),
        r"manifest\.json is not what Step 2 writes",
    ),
    "other settings": (changed, r"manifest\.json is damaged"),
    "a flipped bit": (flipped, r"00001-.*\.arrow is damaged"),
    "a shard less": (
        lambda source: next((source / "shards").glob("00002-*")).unlink(),
        r"00002-.*\.arrow is missing, 1 of 3 shards",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_source_is_refused(source, tmp_path, damage):
    change, message = DAMAGES[damage]
    change(source)
    with pytest.raises(ValueError, match=message) as refused:
        select_boxes(source, tmp_path / "out")
    assert str(source) in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_only_the_store_of_the_source_is_read(source, tmp_path):
    """By its manifest too; what is derived from it may be gone."""
    select_boxes(source, tmp_path / "out")
    for name in ("annotations.json", "summary.json"):
        (source / name).unlink()
    select_boxes(source / "manifest.json", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_store_that_is_no_run_of_step_2_is_refused(tmp_path):
    write_store(tmp_path / "source", [record("a.png", [])], {"converted_from": "x.json"})
    with pytest.raises(ValueError, match=r"is no run of Step 2.*\['converted_from'\]"):
        select_boxes(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tool(generate, source, tmp_path, run_here):
    options = ["--thresholds", ".4", "0.2", "--nms-iou", ".6"]
    done = run_here("select_boxes", source, "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert "10 images" in done.stdout + done.stderr
    assert contents(tmp_path / "out")[0] == contents(generate("direct", (0.4, 0.2), 0.6))[0]


def test_tool_names_the_error(source, run_here):
    done = run_here("select_boxes", source, "--out", source)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is the source itself" in done.stderr


def test_nms_on_the_command_line(source, tmp_path, run_here):
    run_here("select_boxes", source, "--out", tmp_path / "none", "--no-nms")
    assert contents(tmp_path / "none")[0] == contents(source)[0]
    run_here("select_boxes", source, "--out", tmp_path / "default")
    settings = contents(tmp_path / "default")[1]["settings"]
    assert settings == {**contents(source)[1]["settings"], "nms_iou": 0.8}
    both = ("--no-nms", "--nms-iou", ".5")
    assert run_here("select_boxes", source, "--out", tmp_path / "both", *both).returncode == 2
    assert not (tmp_path / "both").exists()


def test_run_of_a_classifier_of_the_zoo(tmp_path):
    root = make_class_folders(tmp_path / "images", 3)
    zoo_run(root, tmp_path / "all", {"pseudo_boxes.nms_iou": None})
    (tmp_path / "all.pth").rename(tmp_path / "own.pth")
    zoo_run(root, tmp_path / "own", {"pseudo_boxes.thresholds": (0.8, 1.25)})
    select_boxes(tmp_path / "all", tmp_path / "selected", (0.8, 1.25), 0.8)
    own, selected = (
        (tmp_path / name / "annotations.json").read_bytes() for name in ("own", "selected")
    )
    assert own == selected
