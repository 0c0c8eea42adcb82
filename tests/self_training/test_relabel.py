"""The second round on tiny photographs: a store, a detector with random weights, a new store."""

import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.utils import register_all_modules
from mmengine.config import Config

from dap.datasets import PseudoBoxDataset
from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes import Execution, PseudoBoxStore
from dap.self_training import MergeRule, box_detector, merged_rows, relabel_boxes
from dap.self_training import relabel as relabel_module
from dap.self_training.box_detector import BoxDetector, Detections
from dap.store.masks import encode_mask
from dap.store.reader import digests
from dap.testing import draw_image, write_image
from dap.visualization.inspection import inspect_boxes
from tests.support.rank_processes import in_ranks
from tests.support.stores import write_store
from tests.support.tiny_detectors import build, tiny_model

CLASSES = ("blue", "green", "red")
SIZE_HW = (96, 128)
BOX = [30, 20, 80, 70]
EXECUTION = Execution(num_workers=0)


@pytest.fixture
def source(tmp_path):
    """Seven images in shards of two, with masks: one of two classes, one without boxes, two at
    fault.
    """
    records = []
    for number in range(7):
        label = number % 3
        image = draw_image(SIZE_HW, [BOX], [CLASSES[label]])
        write_image(tmp_path / "images" / f"{number}.png", image)
        boxes = [[*BOX, label, 0], [10, 10, 90, 90, label, 1]]
        size = {"height": SIZE_HW[0], "width": SIZE_HW[1]}
        records.append({"id": 5 + 2 * number, "file_name": f"{number}.png", **size, "boxes": boxes})
    records[1]["boxes"] += [[0, 0, 50, 50, 2, 1]]
    records[2] |= {"boxes": [], "reason": "its map is constant"}
    for record in records:
        record["masks"] = [encode_mask(np.ones(SIZE_HW, bool))] * len(record["boxes"])
    records.append({"id": 99, "file_name": "gone.png", "reason": "OSError: it is gone"})
    categories = [{"id": 3 + i, "name": name} for i, name in enumerate(CLASSES)]
    settings = {"thresholds": [0.2, 0.5], "masks": True}
    return write_store(tmp_path / "source", records, categories, 2, settings, tmp_path / "images")


def detector_config():
    register_all_modules()
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("ori_shape", "img_shape", "scale_factor")},
    ]
    loader = {"dataset": {"type": "CocoDataset", "ann_file": "", "pipeline": pipeline}}
    model = tiny_model("faster-rcnn", 3, **{"test_cfg.rpn.max_per_img": 50})
    return Config({"default_scope": "mmdet", "model": model, "test_dataloader": loader})


@pytest.fixture
def checkpoint(tmp_path):
    """Weights of a detector whose classes stand in another order than the store's categories."""
    torch.manual_seed(0)
    detector = build(detector_config().model)
    torch.nn.init.normal_(detector.roi_head.bbox_head.fc_cls.weight)  # scores that differ
    meta = {"dataset_meta": {"classes": ("red", "other", "blue")}}
    path = tmp_path / "detector.pth"
    torch.save({"state_dict": detector.state_dict(), "meta": meta}, path)
    return path


def relabel(source, checkpoint, out, rule=None, execution=EXECUTION, **options):
    return relabel_boxes(
        detector_config(), str(checkpoint), source, out, None, rule, execution, "cpu", **options
    )


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(store, index):
    shard, row = store.locate(index)
    boxes, labels, taus = shard.boxes_of(row)
    return [
        [*box, label, tau]
        for box, label, tau in zip(boxes.tolist(), labels.tolist(), taus.tolist(), strict=True)
    ]


def test_boxes_are_those_of_mmdets_own_inference(source, checkpoint, tmp_path):
    """Of each image, the rule makes its boxes of what ``inference_detector`` finds."""
    rule = MergeRule(min_score=0.4)
    relabel(source, checkpoint, tmp_path / "out", rule)
    config = detector_config()
    config.model.test_cfg.rcnn.update(score_thr=box_detector.MIN_SCORE, max_per_img=1000)
    detector = init_detector(config, str(checkpoint), device="cpu")
    old, new = PseudoBoxStore(source), PseudoBoxStore(tmp_path / "out")
    changed = 0
    for index in (0, 1, 3, 4, 5, 6):
        path = str(tmp_path / "images" / f"{index}.png")
        found = inference_detector(detector, path).pred_instances.numpy()
        labels = np.array([2, -1, 0])[found.labels]  # red, other, blue
        detections = Detections(found.bboxes.astype(float), found.scores.astype(float), labels)
        shard, row = old.locate(index)
        expected = merged_rows(*shard.boxes_of(row), detections, SIZE_HW, rule)
        assert rows_of(new, index) == expected
        changed += expected != rows_of(old, index)
        if index == 4:  # green, which the detector does not know
            assert expected == rows_of(old, index)
    assert changed >= 4


def test_what_a_store_is_good_for(source, checkpoint, tmp_path, monkeypatch):
    """It is trained from, judged and looked at; its files say what it was made of.

    Masks of the source are left out with a warning.
    """
    said = []
    monkeypatch.setattr(relabel_module, "print_log", lambda line, *_, **__: said.append(line))
    summary = relabel(source, checkpoint, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["images"] == 7
    assert summary["without_boxes"] == {"its map is constant": 1}
    assert summary["failed"] == [{"file_name": "gone.png", "reason": "OSError: it is gone"}]
    store = PseudoBoxStore(tmp_path / "out")
    assert f"{source} has masks, but detections have none" in said[0]
    assert not store.has_masks
    assert [i for shard in store.shards for i in shard.ids] == [5, 7, 9, 11, 13, 15, 17, 99]
    image_list = store.manifest["image_list"]
    assert image_list["source_sha256"] == digests([source / "manifest.json"])[0]
    assert store.manifest["settings"] == {"thresholds": [0.2, 0.5], **MergeRule().as_json()}
    assert len(store.manifest["detector"]["weights_sha256"]) == 64
    assert store.manifest["checkpoint"] == str(checkpoint)
    dataset = PseudoBoxDataset(
        str(tmp_path / "out"),
        data_prefix={"img": str(tmp_path / "images")},
        filter_cfg={"filter_empty_gt": True},
        pipeline=[],
    )
    assert len(dataset) == 6
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 96, "width": 128} for i in (0, 3)],
        "categories": [{"id": 1, "name": "blue"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [30, 20, 50, 50], "iscrowd": 0}
            for i in (0, 3)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    figures = evaluate_boxes(store, read_ground_truth(tmp_path / "truth.json"))
    assert figures["objects"] == 2
    assert inspect_boxes(store, tmp_path / "page", count=2).is_file()


def test_finished_run_is_kept_and_another_refused(source, checkpoint, tmp_path):
    relabel(source, checkpoint, tmp_path / "out")
    before = contents(tmp_path / "out")
    relabel(source, checkpoint, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"settings.min_score: earlier .*, now 0.9"):
        relabel(source, checkpoint, tmp_path / "out", MergeRule(min_score=0.9))
    state = torch.load(checkpoint)
    state["state_dict"]["rpn_head.rpn_cls.bias"] += 1
    torch.save(state, checkpoint)
    with pytest.raises(ValueError, match=r"detector\.weights_sha256"):
        relabel(source, checkpoint, tmp_path / "out")
    with pytest.raises(ValueError, match="is the source itself"):
        relabel(source, checkpoint, source)
    assert contents(tmp_path / "out") == before


def killed_after(count, arguments):
    """Relabel in a process that is gone in the middle of the image after ``count``."""
    calls = iter(range(count))
    detect = BoxDetector.detect

    def detect_or_die(self, images):
        if next(calls, None) is None:
            os._exit(9)
        return detect(self, images)

    def run():
        torch.set_num_threads(1)
        BoxDetector.detect = detect_or_die
        relabel(*arguments)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    return process.exitcode


def test_killed_run_goes_on_to_the_same_bytes(source, checkpoint, tmp_path):
    """Killed after 0, 1 and 4 images; each start goes on with the shards that are missing."""
    relabel(source, checkpoint, tmp_path / "whole")
    for count in (0, 1, 4):
        arguments = source, checkpoint, tmp_path / "out"
        assert killed_after(count, arguments) == 9
        assert not (tmp_path / "out" / "summary.json").exists()
    assert len(list((tmp_path / "out" / "shards").glob("*.arrow"))) == 2  # images 0 to 3
    relabel(*arguments)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("batch_size", [None, 3])
def test_two_processes_write_the_same_bytes(source, checkpoint, tmp_path, batch_size):
    execution = Execution(num_workers=0, batch_size=batch_size)
    relabel(source, checkpoint, tmp_path / "one", execution=execution)

    def work(rank):
        return relabel(source, checkpoint, tmp_path / "two", execution=execution)["images"]

    assert in_ranks(work, 2, tmp_path) == [7, 7]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_image_that_cannot_be_read_is_named_and_tried_again(source, checkpoint, tmp_path):
    """Broken, and of another size than its boxes are of: left out; mended: as if never broken."""
    relabel(source, checkpoint, tmp_path / "whole")
    images = tmp_path / "images"
    good = {name: (images / name).read_bytes() for name in ("0.png", "5.png")}
    (images / "0.png").write_bytes(good["0.png"][:60])
    write_image(images / "5.png", draw_image((50, 60), [], []))
    summary = relabel(source, checkpoint, tmp_path / "out")
    reasons = {failure["file_name"]: failure["reason"] for failure in summary["failed"]}
    assert reasons.keys() == {"0.png", "5.png", "gone.png"}
    assert "its end is missing" in reasons["0.png"]
    assert "60 x 50 pixels, the boxes are of an image of 128 x 96" in reasons["5.png"]
    assert rows_of(PseudoBoxStore(tmp_path / "out"), 0) == []
    for name, content in good.items():
        (images / name).write_bytes(content)
    again = Execution(num_workers=0, retry_failed=True)
    relabel(source, checkpoint, tmp_path / "out", execution=again)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_wrong_folder_of_images_stops_the_run(source, checkpoint, tmp_path):
    with pytest.raises(RuntimeError, match="more than the 50% that may fail"):
        relabel_boxes(
            detector_config(), str(checkpoint), source, tmp_path / "out", tmp_path, None, EXECUTION
        )


def test_image_that_the_detector_fails_on_costs_itself_alone(
    source, checkpoint, tmp_path, monkeypatch
):
    detect = BoxDetector.detect

    def detect_or_fail(self, images):
        if any(image[0, 40, 50] == 220 for image in images):  # blue: images 0, 3 and 6
            raise RuntimeError("no kernel for it")
        return detect(self, images)

    monkeypatch.setattr(BoxDetector, "detect", detect_or_fail)
    summary = relabel(source, checkpoint, tmp_path / "out", execution=Execution(0, batch_size=2))
    failed = {failure["file_name"]: failure["reason"] for failure in summary["failed"]}
    assert failed.keys() == {"0.png", "3.png", "6.png", "gone.png"}
    assert failed["3.png"] == "RuntimeError: no kernel for it"


def changed_checkpoint(path, **changes):
    content = torch.load(path)
    content["meta"] |= changes.get("meta", {})
    content["state_dict"] |= changes.get("weights", {})
    for name in changes.get("without", ()):
        del content["state_dict"][name]
    torch.save(content, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["rpn_head.rpn_cls.bias"]}, r"lacks rpn_head.rpn_cls.bias, one of 1 such"),
        ({"weights": {"more": torch.ones(1)}}, "has beyond the model more, one of 1 such"),
        ({"weights": {"rpn_head.rpn_cls.bias": torch.ones(7)}}, "has another shape of rpn_head"),
        ({"meta": {"dataset_meta": {"classes": ("cat", "dog", "owl")}}}, "none of its 3 classes"),
        ({"meta": {"dataset_meta": {}}}, "no class names in its meta"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(source, checkpoint, tmp_path, changes, message):
    changed_checkpoint(checkpoint, **changes)
    with pytest.raises(ValueError, match=message):
        relabel(source, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_config_without_a_test_pipeline_is_refused(source, checkpoint, tmp_path):
    config = Config({"model": detector_config().model})
    with pytest.raises(ValueError, match="no test_dataloader or val_dataloader"):
        relabel_boxes(config, str(checkpoint), source, tmp_path / "out", device="cpu")


def test_tool(source, checkpoint, tmp_path, run_here):
    """The command does what the function does."""
    relabel(source, checkpoint, tmp_path / "whole", MergeRule(0.6, 0.4))
    detector_config().dump(tmp_path / "detector.py")
    arguments = ("--out", tmp_path / "out", "--min-score", 0.6, "--max-overlap", 0.4)
    options = ("--workers", 0, "--device", "cpu")
    command = ("relabel_boxes", tmp_path / "detector.py", checkpoint, source)
    done = run_here(*command, *arguments, *options)
    assert done.returncode == 0, done.stderr
    old, new = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert old.keys() == new.keys()
    assert [name for name in old if old[name] != new[name]] == ["manifest.json", "summary.json"]
    manifests = [json.loads(each["manifest.json"]) for each in (old, new)]
    assert manifests[1].pop("config") == str(tmp_path / "detector.py")
    assert manifests[0].pop("config") is None
    assert manifests[0] == manifests[1]
    done = run_here(*command, "--out", "x", "--min-score", 2)
    assert done.returncode == 1
    assert "error: min_score: expected a value in" in done.stderr
