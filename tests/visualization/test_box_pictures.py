"""Pictures that a run shows while it goes on."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from dap.pseudo_boxes import PseudoBoxSettings, PseudoBoxStore, generate_pseudo_boxes
from dap.testing import make_class_folders
from dap.visualization.box_pictures import BoxPictures
from dap.visualization.gallery import COLOURS_BGR
from tests.support.planted import planted_classifier

SETTINGS = {"short_sides": [112], "thresholds": [0.3]}


def generate(root, out, watcher):
    dataset = CustomDataset(data_root=str(root))
    settings = PseudoBoxSettings(**SETTINGS)
    generate_pseudo_boxes(planted_classifier(), dataset, out, settings, watcher=watcher)
    return PseudoBoxStore(out)


def config(count, *backends):
    return Config({
        "pseudo_boxes": SETTINGS, "pseudo_box_pictures": count,
        "visualizer": {"type": "UniversalVisualizer", "vis_backends": [*backends]},
    })  # fmt: skip


def test_pictures_are_spread_over_the_run_and_change_no_box(tmp_path):
    root = make_class_folders(tmp_path / "images", 7)
    (root / "green" / "0.jpg").write_bytes(b"no image")  # the eighth, whose turn it is
    backend = {"type": "LocalVisBackend"}
    watcher = BoxPictures.from_config(config(3, backend), str(tmp_path / "out"))
    store = generate(root, tmp_path / "out", watcher)
    shown = sorted((tmp_path / "out" / "vis_data" / "vis_image").iterdir())
    assert [path.name for path in shown] == ["pseudo_boxes_1.png", "pseudo_boxes_15.png"]
    quiet = generate(root, tmp_path / "quiet", None)
    assert json.dumps(store.manifest) == json.dumps(quiet.manifest)
    x1, y1, x2, y2 = store.shards[0].boxes_of(0)[0][0]
    picture = cv2.imread(str(shown[0]))
    scale = 444 / max(int(side[0]) for side in store.shards[0].sizes_hw)
    middle = round((x1 + x2) / 2 * scale)
    column = picture[:, middle].astype(int)
    rim = np.flatnonzero(np.abs(column - COLOURS_BGR[0]).max(axis=1) < 40)
    assert abs(rim.min() - y1 * scale) <= 3
    assert abs(rim.max() - y2 * scale) <= 3


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra of its own")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root = make_class_folders(tmp_path / "images", 2)
    asked = config(2, {"type": "TensorboardVisBackend"})
    generate(root, tmp_path / "out", BoxPictures.from_config(asked, str(tmp_path / "out")))
    events = EventAccumulator(str(tmp_path / "out" / "vis_data"))
    events.Reload()
    assert [event.step for event in events.Images("pseudo_boxes")] == [1, 4]


def test_backend_that_cannot_write_stops_no_run(tmp_path, monkeypatch):
    root = make_class_folders(tmp_path / "images", 2)
    watcher = BoxPictures.from_config(config(2), str(tmp_path / "out"))
    tried = []

    def full(*_, **options):
        tried.append(options["step"])
        raise OSError("no space left")

    monkeypatch.setattr(watcher.visualizer, "add_image", full)
    assert len(generate(root, tmp_path / "out", watcher)) == 6
    assert tried == [1, 4]


def test_no_pictures_unless_asked_for(tmp_path):
    assert BoxPictures.from_config(Config({"pseudo_boxes": SETTINGS}), str(tmp_path)) is None
    with pytest.raises(ValueError, match="pseudo_box_pictures: expected a number of images"):
        BoxPictures.from_config(config("many"), str(tmp_path))
