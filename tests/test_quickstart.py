"""The quick start: its data, its chain of steps, and (slow) its promise."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import VOCDataset
from mmengine.config import Config, DictAction

from dap.registry import DATASETS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "quickstart"


def load(name):
    spec = importlib.util.spec_from_file_location(f"quickstart_{name}", PROJECT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes():
    return load("shapes")


@pytest.fixture(scope="module")
def run():
    return load("run")


def test_seed_decides_the_data(shapes, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        shapes.make_classification_set(
            tmp_path / name / "train", 1, seed, tmp_path / f"{name}.json"
        )
    files = [sorted((tmp_path / name).rglob("*.jpg")) for name in "abc"]
    assert [len(of) for of in files] == [16, 16, 16]
    contents = [[path.read_bytes() for path in of] for of in files]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_true_boxes_are_tight(shapes):
    """A plain disc alone: its box touches its outermost coloured pixels."""
    shape = shapes.make_classes(shapes.PRETRAIN_NAMES, hues=16)[0]
    image = np.full((shapes.SIDE, shapes.SIDE, 3), 128.0)
    rng = np.random.default_rng(0)
    mask = shapes._paint(image, shape, np.array([60.0, 70.0]), 30.0, rng)
    x1, y1, x2, y2 = shapes._tight_box(mask)
    changed = abs(image - 128).max(axis=2) > 60
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert abs(np.array([x1, y1, x2, y2]) - [columns[0], rows[0], columns[-1] + 1,
                                             rows[-1] + 1]).max() <= 1  # fmt: skip


def test_detection_set_is_read_by_mmdet(shapes, tmp_path):
    root = shapes.make_detection_set(tmp_path / "shapes_voc", 2, 5, seed=0)
    config = Config.fromfile(str(PROJECT / "configs" / "finetune_cls.py"))
    settings = dict(config.train_dataloader.dataset)
    settings.update(data_root=str(tmp_path), pipeline=[])
    settings.pop("type")
    settings.pop("_scope_", None)
    dataset = VOCDataset(**settings)
    assert len(dataset) == 2 * len(shapes.DETECTION_NAMES)
    labels = [i["bbox_label"] for k in range(len(dataset)) for i in dataset[k]["instances"]]
    assert set(labels) == set(range(8))
    assert set(shapes.DETECTION_NAMES).isdisjoint(shapes.PRETRAIN_NAMES)
    image = cv2.imread(str(next((root / "JPEGImages").iterdir())))
    assert image.shape == (128, 128, 3)


def test_control_trains_on_the_true_boxes(shapes, run, tmp_path):
    """Its options put a COCO file, all its categories, in the place of the pseudo boxes."""
    images = tmp_path / "images"
    shapes.make_classification_set(images, 1, 0, tmp_path / "true.json")
    config = Config.fromfile(str(PROJECT / "configs" / "pretrain_detector.py"))
    options = dict(option.split("=") for option in run.TRUE_BOXES)
    config.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in options.items()})
    assert {k for step in run.all_steps(0, control=True) for k in step.command} >= {*run.TRUE_BOXES}
    settings = config.train_dataloader.dataset
    assert settings.ann_file == "data/true_boxes.json"
    settings.update(ann_file=str(tmp_path / "true.json"), pipeline=[])
    dataset = DATASETS.build(settings)
    assert dataset.metainfo["classes"] == tuple(sorted(shapes.PRETRAIN_NAMES))
    assert len(dataset) == 16


def test_twins_share_all_but_the_initialisation():
    cls, dap = (
        Config.fromfile(str(PROJECT / "configs" / f"finetune_{name}.py")).to_dict()
        for name in ("cls", "dap")
    )
    del dap["model"]["init_cfg"], dap["model"]["backbone"]["init_cfg"]
    del cls["model"]["backbone"]["init_cfg"]
    assert cls == dap


def test_finished_steps_are_known_and_failures_told(run, tmp_path):
    def step(code):
        return run.Step("demo", "a demonstration", [sys.executable, "-c", code], "out")

    good = step("import os; os.makedirs('out'); print('Iter(train) 1')")
    assert run.seconds_of_finished(good, tmp_path) is None
    seconds = run.run_step(good, tmp_path)
    assert run.seconds_of_finished(good, tmp_path) == seconds
    run.run_step(good, tmp_path)  # what it wrote before is gone, or makedirs would fail
    bad = step("print('no luck'); raise SystemExit(3)")
    assert run.seconds_of_finished(bad, tmp_path) is None  # another command is not finished
    with pytest.raises(SystemExit, match=r"(?s)no luck.*step demo ended with code 3"):
        run.run_step(bad, tmp_path)
    assert run.seconds_of_finished(bad, tmp_path) is None
    assert run.seconds_of_finished(good, tmp_path) is None
    assert not (tmp_path / "out").exists()


def test_unknown_step_is_named():
    done = subprocess.run(
        [sys.executable, str(PROJECT / "run.py"), "--steps", "finetune"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no such step: finetune" in done.stderr


@pytest.mark.slow
def test_dap_has_the_head_start(tmp_path):
    """The target for one seed: +8 AP50 at a sixth of the schedule, not behind at its end."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "run.py"), "--work-dir", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    cls, dap = summary["cls"], summary["dap"]
    assert dap["curve"][0]["iteration"] == 25
    assert dap["curve"][0]["AP50"] - cls["curve"][0]["AP50"] >= 8
    assert dap["AP50"] >= cls["AP50"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Fine-tuning from them" in page
    assert "MaxBoxAccV2 of 300 maps" in page
    assert "cannot be read" not in page
