"""Runs derived from one that kept every box, against runs that computed their maps."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset, MultiLabelDataset
from planted import planted_classifier

from dap.cam.boxes import Candidates, box_candidates
from dap.pseudo_boxes import (
    PseudoBoxSettings,
    coco_reader,
    generate_pseudo_boxes,
    select,
    select_boxes,
)
from dap.pseudo_boxes.coco import box_of, coco_annotations
from dap.pseudo_boxes.merging import merged_boxes, rounded
from dap.testing import draw_image, write_image

TOOL = Path(__file__).parents[2] / "tools" / "select_boxes.py"
TAUS = (0.2, 0.3, 0.4, 0.5)
NMS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, None)


def clouds(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Smooth colour noise: components that split and shrink with the threshold."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


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
        generate_pseudo_boxes(model, of, tmp_path / name, settings, "weights.pth", num_workers=0)
        return tmp_path / name

    return run


@pytest.fixture
def source(generate):
    return generate("source")


def contents(folder: Path) -> tuple[bytes, dict]:
    return (folder / "annotations.json").read_bytes(), json.loads(
        (folder / "summary.json").read_text()
    )


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_derived_run_is_the_direct_run(generate, tmp_path, rule):
    """Tables A1 and A2: each threshold alone, all at each NMS; subsets, one in another order."""
    source = generate("source", rule=rule)
    cases = [((tau,), nms) for tau in TAUS for nms in (0.8, None)]
    cases += [(TAUS, nms) for nms in NMS] + [((0.5, 0.2, 0.3), 0.6), ((0.4, 0.3), None)]
    found = {}
    for number, (thresholds, nms_iou) in enumerate(cases):
        direct = generate(f"direct{number}", thresholds, nms_iou, rule)
        returned = select_boxes(source, tmp_path / f"derived{number}", thresholds, nms_iou)
        annotations, summary = contents(tmp_path / f"derived{number}")
        expected_annotations, expected = contents(direct)
        assert annotations == expected_annotations, (thresholds, nms_iou)
        assert summary == returned
        assert summary.pop("derived_from") == contents(source)[1]["settings"]
        assert summary == expected, (thresholds, nms_iou)
        assert [failure["file_name"] for failure in summary["failed"]] == ["gone.png", "cut.png"]
        found[thresholds, nms_iou] = summary["merged"]
    by_nms = [found[TAUS, nms]["boxes"] for nms in NMS]
    assert by_nms == sorted(by_nms)
    assert len(set(by_nms)) >= 5  # else the cases would not tell one NMS from another
    assert len({found[(tau,), 0.8]["mean_width"] for tau in TAUS}) == 4


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_candidates_of_a_threshold_do_not_depend_on_the_others(rule):
    """To the last bit: what is rounded at a tie would differ."""
    for seed in range(50):
        cam = clouds(seed, (23 + seed, 41))[..., 0] / 255
        found = box_candidates(cam, TAUS, rule, 7.3)
        for i, tau in enumerate(TAUS):
            alone = box_candidates(cam, (tau,), rule, 7.3).boxes
            assert np.array_equal(alone, found.boxes[found.thresholds == i]), (seed, tau)


def test_defaults_are_all_thresholds_and_the_papers_nms(generate, source, tmp_path):
    select_boxes(source, tmp_path / "derived")
    direct = generate("direct", nms_iou=0.8)
    assert contents(tmp_path / "derived")[0] == contents(direct)[0]


def test_progress_ends_at_its_total(source, tmp_path, monkeypatch):
    """Of 10 images two have no box."""
    made = []

    class Spied(select.Progress):
        def close(self):
            made.append((self.done, self.share, self.total))
            return super().close()

    monkeypatch.setattr(select, "Progress", Spied)
    summary = select_boxes(source, tmp_path / "out")
    assert (summary["images"], summary["images_without_boxes"]) == (10, 2)
    assert made == [(8, 8, 8)]


def test_killed_before_the_summary_is_run_again(source, tmp_path):
    out = tmp_path / "out"
    select_boxes(source, out, (0.3,), 0.8)
    before = contents(out)
    (out / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"without a summary\.json"):
        select_boxes(source, out, (0.3,), 0.7)
    assert (out / "annotations.json").read_bytes() == before[0]
    select_boxes(source, out, (0.3,), 0.8)
    assert contents(out) == before


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
    annotations, summary = contents(tmp_path / "derived")
    assert annotations == contents(generate("direct", (0.4,), 0.5, of=plain))[0]
    assert (summary["images"], summary["images_without_boxes"]) == (3, 3)


def test_box_comes_back_from_the_file_to_the_last_bit():
    """From x and width to x2: sums of floats of two decimals, rounded to two decimals."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, [[[40]], [[600]], [[12_000]]], (3, 20_000, 2)).reshape(-1, 2)
    end = start + rng.uniform(0.01, 6_000, start.shape)
    boxes = np.round(np.concatenate([start, end], axis=1), 2)
    records = [(0, {"boxes": [[*box, 0, 0] for box in boxes.tolist()]})]
    written = [json.loads(json.dumps(a)) for a in coco_annotations(records, [0.2])]
    assert np.array_equal([box_of(annotation) for annotation in written], boxes)


def test_rounding_drops_what_has_no_extent():
    boxes = np.array([[1.004, 2.006, 5.125, 6.135], [9.996, 0, 10, 4], [0, 3.994, 7, 3.9949]])
    found = rounded(Candidates(boxes, np.array([0, 1, 1])))
    assert found.boxes.tolist() == [[1.0, 2.01, 5.12, 6.14]]
    assert found.thresholds.tolist() == [0]


@pytest.mark.parametrize(
    ("nms_iou", "rule", "kept"),
    [
        (0.8, "paper", [1, 0]),
        (0.79, "paper", [1]),
        (0.8, "release", [1]),
        (None, "release", [1, 0]),
    ],
)
def test_merging_by_hand(nms_iou, rule, kept):
    """10 x 8 in 10 x 10: IoU .8, not above .8; with a pixel more 99 / 121 = .818, at least .8."""
    boxes = np.array([[0.0, 0, 10, 8], [0, 0, 10, 10]])
    settings = PseudoBoxSettings(thresholds=(0.2, 0.4), nms_iou=nms_iou, rule=rule)
    record = merged_boxes([(4, Candidates(boxes, np.array([1, 0])))], settings)
    assert record["boxes"] == [[*boxes[i].tolist(), 4, 1 - i] for i in kept]
    assert record["per_threshold"] == [[1, 10.0, 10.0], [1, 10.0, 8.0]]


def test_boxes_of_one_class_do_not_suppress_those_of_another():
    boxes = np.array([[0.0, 0, 10, 10]])
    found = [(label, Candidates(boxes, np.array([0]))) for label in (2, 5)]
    record = merged_boxes(found, PseudoBoxSettings(thresholds=(0.2,), nms_iou=0.5))
    assert [box[4] for box in record["boxes"]] == [2, 5]
    assert record["per_threshold"] == [[2, 20.0, 20.0]]


def test_finished_run_is_kept_and_another_refused(generate, source, tmp_path):
    out = tmp_path / "out"
    first = select_boxes(source, out, (0.3,), 0.8)
    before = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    assert select_boxes(source, out, (0.3,), 0.8) == first
    assert generate("out", (0.3,), 0.8) == out  # the same run, were its maps computed
    with pytest.raises(
        ValueError, match=r"holds another run.*settings\.nms_iou: 0\.8 there, 0\.7 now"
    ):
        select_boxes(source, out, (0.3,), 0.7)
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == before
    assert [path.name for path in sorted(out.iterdir())] == ["annotations.json", "summary.json"]


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


def test_no_run_is_no_source(source, tmp_path):
    with pytest.raises(ValueError, match="nowhere holds no finished run"):
        select_boxes(tmp_path / "nowhere", tmp_path / "out")
    for content in ("no json", "{}", "[]", '{"settings": {}}', '{"settings": [1]}'):
        (source / "summary.json").write_text(content)
        with pytest.raises(ValueError, match=r"summary\.json is not what Step 2 writes"):
            select_boxes(source, tmp_path / "out")
    (source / "summary.json").unlink()
    with pytest.raises(ValueError, match="source holds no finished run"):
        select_boxes(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def last_box_removed(lines):
    return [*lines[:-3], lines[-3].removesuffix(","), *lines[-1:]]


DAMAGES = {
    "one line": (lambda lines: [json.dumps(json.loads("".join(lines)))], "line 1: expected"),
    "no text": (lambda lines: ["\udcff\udcfe", *lines], "line 1: expected 'text'"),
    "empty": (lambda lines: [], "line 1: expected"),
    "cut in an image": (lambda lines: [*lines[:4], lines[4][:20]], "line 5: expected"),
    "cut between boxes": (lambda lines: lines[:-3], "expected 'a line that ends'"),
    "another run": (
        lambda lines: [lines[0].replace('"paper"', '"release"'), *lines[1:]],
        r"annotations\.json is of another run than the summary",
    ),
    "a box less": (last_box_removed, r"items with \('image_id', 'category_id'\), summary"),
    "an image less": (lambda lines: [*lines[:4], *lines[5:]], r"has 9 items with \('id',\), .* 10"),
    "images in another order": (
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        r"\[1\] stands behind \[2\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_source_is_refused(source, tmp_path, damage):
    change, message = DAMAGES[damage]
    annotations = source / "annotations.json"
    changed = "\n".join(change(annotations.read_text().splitlines()))
    annotations.write_bytes((changed + "\n" * bool(changed)).encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message) as refused:
        select_boxes(source, tmp_path / "out")
    assert str(annotations) in str(refused.value)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "annotations.json").exists()


def test_file_without_line_ends_is_not_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_reader, "LINE_LIMIT", 1000)
    (tmp_path / "x.json").write_text('{"info": ' + " " * 100_000)
    with open(tmp_path / "x.json") as file, pytest.raises(ValueError, match="a line that ends"):
        coco_reader.CocoReader(file)


def test_images_are_streamed(source, tmp_path, monkeypatch):
    """When the first box is merged, the last line of the source must not have been read."""
    unread = []

    def spy(found, settings):
        unread.append(reader._file.readable() and reader._number)
        return merged_boxes(found, settings)

    class Spied(coco_reader.CocoReader):
        def __init__(self, file):
            nonlocal reader
            reader = self
            super().__init__(file)

    reader = None
    monkeypatch.setattr(select, "CocoReader", Spied)
    monkeypatch.setattr(select, "merged_boxes", spy)
    select_boxes(source, tmp_path / "out")
    assert unread == sorted(set(unread))  # each image some lines further on
    assert unread[0] < reader._number // 2


def start_tool(*arguments):
    command = [sys.executable, "-W", "ignore", str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def run_tool(monkeypatch):
    """Call the tool in this process."""
    spec = importlib.util.spec_from_file_location("select_boxes_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        tool.main()

    return run


def test_tool(generate, source, tmp_path):
    options = ["--thresholds", ".4", "0.2", "--nms-iou", ".6"]
    done = start_tool(source, "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert "10 images" in done.stdout + done.stderr
    assert contents(tmp_path / "out")[0] == contents(generate("direct", (0.4, 0.2), 0.6))[0]


def test_tool_names_the_error(source):
    done = start_tool(source, "--out", source)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is the source itself" in done.stderr
    assert "Traceback" not in done.stderr


def test_nms_on_the_command_line(source, tmp_path, run_tool):
    run_tool(source, "--out", tmp_path / "none", "--no-nms")
    assert contents(tmp_path / "none")[0] == contents(source)[0]
    run_tool(source, "--out", tmp_path / "default")
    settings = contents(tmp_path / "default")[1]["settings"]
    assert settings == {**contents(source)[1]["settings"], "nms_iou": 0.8}
    with pytest.raises(SystemExit, match="2"):
        run_tool(source, "--out", tmp_path / "both", "--no-nms", "--nms-iou", ".5")
    assert not (tmp_path / "both").exists()
