"""Step 3 validates on held-out images: the pictures, the figures, and images that are missing."""

# ruff: noqa: NPY002 - what mmdet draws from

import json
import os
import random
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from dap.hooks.validation_pictures_hook import ValidationPicturesHook
from dap.testing import make_coco
from tests.support import forked
from tests.support.workplace import CONFIGS, SMALL_FASTER_RCNN, SMALL_STEP_3, make_store

PRETRAIN = CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py"
PALETTE_RGB = [(255, 0, 255), (255, 255, 0), (0, 255, 255)]  # unlike those of the objects
SIZE_HW = (96, 128)  # of all images
SEEN = (32, 24, 96, 72)  # what a Spotter sees, xyxy in the image
ITERATIONS = {"type": "IterBasedTrainLoop", "max_iters": 5, "val_interval": 2}
EPOCHS = {"type": "EpochBasedTrainLoop", "max_epochs": 2}  # of three iterations
LOCAL, TENSORBOARD = {"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}
LOAD = {"type": "LoadImageFromFile"}
BOXES = {"type": "LoadAnnotations", "with_bbox": True}
RESIZE = {"type": "Resize", "scale": (64, 48), "keep_ratio": True}
KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


class Spotter(BaseModel):
    """Sees the middle of what it is given; the surer of something else, the longer it trains."""

    def __init__(self):
        super().__init__({"type": "mmdet.DetDataPreprocessor"})
        self.layers = nn.Sequential(
            nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Dropout2d(0.5)
        )
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, inputs, data_samples, mode):
        if mode == "loss":
            self.steps += 1
            level = self.layers(inputs / 255).mean() + random.random() + np.random.rand()
            return {"loss": (level + torch.rand(())).square()}
        height, width = inputs.shape[2:]
        for sample in data_samples:
            factor = torch.tensor(sample.scale_factor).repeat(2)
            middle = torch.tensor([width, height, 3 * width, 3 * height]) / 4 / factor
            sample.pred_instances = InstanceData(
                bboxes=torch.stack([middle, middle / 2]),
                scores=torch.stack([torch.tensor(0.9), self.steps / 8]),
                labels=torch.tensor([0, 1]),
            )
        return data_samples


@pytest.fixture
def data(tmp_path):
    """A store of 70 images with boxes and one without; 7 of them are held out."""
    make_store(make_coco(tmp_path / "data", 71), tmp_path / "data" / "boxes")
    return tmp_path / "data"


def make_runner(work_dir, data, loop=ITERATIONS, workers=0, **settings):
    """A runner that shows two images at each validation; ``pictures=0`` for none."""
    pictures = {"type": "dap.ValidationPicturesHook", "num_images": settings.pop("pictures", 2)}
    sampler = "InfiniteSampler" if loop["type"] == "IterBasedTrainLoop" else "DefaultSampler"
    train = {
        "type": "dap.PseudoBoxDataset",
        "part": "train",
        "ann_file": str(data / "boxes"),
        "data_prefix": {"img": f"{data}/images/"},
        "metainfo": {"classes": (), "palette": PALETTE_RGB},
        "indices": 6,
        "pipeline": [LOAD, BOXES, RESIZE, {"type": "PackDetInputs"}],
    }
    loader = {
        "dataset": train,
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": sampler, "shuffle": True},
        "collate_fn": {"type": "pseudo_collate"},
    }
    val = {
        "type": "dap.PseudoBoxDataset",
        "part": "val",
        "test_mode": True,
        "pipeline": [LOAD, RESIZE, BOXES, {"type": "PackDetInputs", "meta_keys": KEYS}],
    }
    return Runner(
        **{
            "model": Spotter(),
            "work_dir": str(work_dir),
            "experiment_name": work_dir.name,  # MMEngine knows visualizers by it
            "default_scope": "mmdet",
            "cfg": {"train_dataloader": loader, **settings.pop("cfg", {})},
            "train_dataloader": loader,
            "val_dataloader": {
                "dataset": val,
                "batch_size": 1,
                "num_workers": workers,
                "persistent_workers": workers > 0,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
            },
            "val_cfg": {"type": "dap.HeldOutValLoop"},
            "val_evaluator": {"type": "dap.BoxLocalization"},
            "train_cfg": loop,
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
            "default_hooks": {
                "logger": {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": False},
                "visualization": pictures,
            },
            "log_processor": {"by_epoch": loop is EPOCHS},
            "visualizer": {"type": "DetLocalVisualizer", "vis_backends": [dict(LOCAL)]},
            "randomness": {"seed": 3},
            **settings,
        }
    )


def pictures(work_dir):
    """File name → picture, RGB."""
    paths = work_dir.rglob("vis_image/*.png")
    return {path.stem: cv2.imread(str(path))[..., ::-1] for path in paths}


def steps_shown(work_dir):
    """Batch → the iterations at which its image was shown."""
    steps = {}
    for stem in pictures(work_dir):
        batch, step = map(int, re.fullmatch(r"val_img_(\d+)_(\d+)", stem).groups())
        steps.setdefault(batch, []).append(step)
    return {batch: sorted(steps[batch]) for batch in sorted(steps)}


def scalars(work_dir):
    (log,) = work_dir.rglob("vis_data/scalars.json")
    return [json.loads(line) for line in log.read_text().splitlines()]


def validated(work_dir):
    """Iteration → recall of the held-out boxes."""
    name = "localization/recall"
    return {line["step"]: line[name] for line in scalars(work_dir) if name in line}


def painted(picture, colour_rgb):
    """Where a colour is, shape (H, W)."""
    return np.abs(picture.astype(int) - colour_rgb).max(axis=2) < 60


def outline(boxes, half_width):
    """Where the lines around boxes are."""
    mask = np.zeros(SIZE_HW, bool)
    rows, columns = np.ogrid[: SIZE_HW[0], : SIZE_HW[1]]
    for x1, y1, x2, y2 in boxes:
        across = np.minimum(abs(columns - x1), abs(columns - x2)) <= half_width
        along = np.minimum(abs(rows - y1), abs(rows - y2)) <= half_width
        inside_x = (columns >= x1 - half_width) & (columns <= x2 + half_width)
        inside_y = (rows >= y1 - half_width) & (rows <= y2 + half_width)
        mask |= (across & inside_y) | (along & inside_x)
    return mask


def check_lines(picture, colour_rgb, boxes):
    """Lines of a colour are where the boxes end; labels and other boxes may cover some of them."""
    seen = painted(picture, colour_rgb)
    assert not (seen & ~outline(boxes, half_width=3)).any()
    assert seen[outline(boxes, half_width=0)].mean() > 0.5 if boxes else not seen.any()


class TestPictures:
    @pytest.mark.parametrize(
        ("loop", "steps"), [(ITERATIONS, [2, 4, 5]), (EPOCHS, [3, 6])], ids=["iter", "epoch"]
    )
    def test_same_images_at_every_validation(self, data, tmp_path, loop, steps):
        make_runner(tmp_path, data, loop).train()
        assert steps_shown(tmp_path) == {1: steps, 5: steps}  # in the middles of two halves
        assert list(validated(tmp_path)) == steps
        found = pictures(tmp_path)
        halves = [np.split(found[f"val_img_5_{step}"], 2, axis=1) for step in steps]
        left, right = zip(*halves, strict=True)
        assert all(np.array_equal(one, left[0]) for one in left)
        sure = [painted(one, PALETTE_RGB[1]).any() for one in right]
        assert sure == [step / 8 > 0.3 for step in steps]

    def test_boxes_left_and_detections_right(self, data, tmp_path):
        runner = make_runner(tmp_path, data, pictures=10)
        runner.val_loop.run()
        dataset, found, boxes = runner.val_dataloader.dataset, pictures(tmp_path), 0
        assert sorted(found) == [f"val_img_{index}_0" for index in range(7)]
        for index in range(7):
            left, right = np.split(found[f"val_img_{index}_0"], 2, axis=1)
            assert left.shape[:2] == SIZE_HW
            for label, colour in enumerate(PALETTE_RGB):
                instances = dataset.get_data_info(index)["instances"]
                of_label = [box["bbox"] for box in instances if box["bbox_label"] == label]
                check_lines(left, colour, of_label)
                boxes += len(of_label)
            check_lines(right, PALETTE_RGB[0], [SEEN])
            check_lines(right, PALETTE_RGB[1], [])  # its score is below .3
        assert boxes == 14

    def test_resumed(self, data, tmp_path):
        first = make_runner(tmp_path / "first", data, ITERATIONS | {"max_iters": 2})
        first.train()
        first.save_checkpoint(str(tmp_path), "two.pth")
        settings = {"resume": True, "load_from": f"{tmp_path}/two.pth"}
        make_runner(tmp_path / "second", data, **settings).train()
        assert steps_shown(tmp_path / "second") == {1: [4, 5], 5: [4, 5]}

    def test_tensorboard(self, data, tmp_path):
        """The same pictures and figures in TensorBoard and in files."""
        accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator",
            reason="TensorBoard is not installed: uv sync --extra tensorboard",
        )
        both = {"type": "DetLocalVisualizer", "vis_backends": [dict(LOCAL), dict(TENSORBOARD)]}
        make_runner(tmp_path / "run", data, visualizer=both).train()
        (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
        log = accumulator.EventAccumulator(str(events)).Reload()
        assert sorted(log.Tags()["images"]) == ["val_img_1", "val_img_5"]
        recall = {event.step: event.value for event in log.Scalars("localization/recall")}
        assert recall == pytest.approx(validated(tmp_path / "run"))
        found = pictures(tmp_path / "run")
        for event in log.Images("val_img_5"):
            encoded = np.frombuffer(event.encoded_image_string, np.uint8)
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
            assert np.array_equal(picture, found[f"val_img_5_{event.step}"])
        assert [event.step for event in log.Images("val_img_5")] == [2, 4, 5]

    @pytest.mark.parametrize("value", [-1, 0.5])
    def test_numbers_out_of_range(self, value):
        with pytest.raises(ValueError, match=f"num_images={value}; expected an integer from 0"):
            ValidationPicturesHook(value)


class TestTrainingIsTheSame:
    """To the last bit, with and without pictures."""

    def compare(self, tmp_path, make):
        weights, states, losses = [], [], []
        for count in (2, 0):
            torch.manual_seed(0)  # of a model that is there before the runner
            work_dir = tmp_path / f"with_{count}"
            runner = make(work_dir, count)
            runner.train()
            weights.append(runner.model.state_dict())
            states.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
            losses.append([line["loss"] for line in scalars(work_dir) if "loss" in line])
        shown, plain = weights
        assert shown.keys() == plain.keys()
        assert all(torch.equal(shown[name], plain[name]) for name in plain)
        assert losses[0] == losses[1]
        assert states[0] == states[1]
        assert pictures(tmp_path / "with_2")
        assert not pictures(tmp_path / "with_0")

    def test_of_a_detector_that_draws_random_numbers(self, data, tmp_path):
        self.compare(tmp_path, lambda folder, count: make_runner(folder, data, pictures=count))

    def test_of_the_config(self, data, tmp_path):
        """Whoever names a store for the training has named it for validation and pictures."""
        self.compare(tmp_path, lambda folder, count: from_config(folder, data, count))
        assert steps_shown(tmp_path / "with_2") == {1: [2, 3], 5: [2, 3]}
        assert list(validated(tmp_path / "with_2")) == [2, 3]


def from_config(work_dir, data, count):
    """A runner of the pre-training config, made small by options."""
    config = Config.fromfile(PRETRAIN)
    options = [
        *SMALL_FASTER_RCNN, *SMALL_STEP_3, "model.backbone.init_cfg=None",
        "model.roi_head.bbox_head.num_classes=3",
        "train_cfg.max_iters=3", "train_cfg.val_interval=2",
        f"train_dataloader.dataset.ann_file={data}/boxes/manifest.json",
        f"train_dataloader.dataset.data_prefix.img={data}/images/",
        "default_hooks.logger.interval=1",
        f"default_hooks.visualization.num_images={count}",
        f"work_dir={work_dir}", f"experiment_name={work_dir.name}",
        f"visualizer.name={work_dir.name}", "randomness.seed=3",
    ]  # fmt: skip
    pairs = (option.split("=", 1) for option in options)
    config.merge_from_dict({name: DictAction._parse_iterable(value) for name, value in pairs})
    return Runner.from_cfg(config)


class TestTrainingGoesOn:
    @pytest.mark.parametrize(
        ("content", "workers"),
        [(None, 2), (b"", 0), (b"no image", 0)],
        ids=["missing", "empty", "text"],
    )
    def test_held_out_image_that_cannot_be_read(self, data, tmp_path, capsys, content, workers):
        runner = make_runner(tmp_path, data, workers=workers)
        path = Path(runner.val_dataloader.dataset.get_data_info(5)["img_path"])
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        runner.train()
        assert runner.iter == 5
        assert list(validated(tmp_path)) == [2, 4, 5]
        (line,) = (x for x in capsys.readouterr().out.splitlines() if "held-out" in x)
        said = f"WARNING - 1 of 7 held-out images are left out of the validation.*: {path} "
        assert re.search(said, line)  # MMEngine logs the same warning once
        assert len(pictures(tmp_path)) == 6  # of the batches that there are

    def test_picture_that_cannot_be_drawn(self, data, tmp_path, capsys, monkeypatch):
        runner = make_runner(tmp_path, data)

        def fail(*args, **kwargs):
            raise OSError("no space left on device")

        monkeypatch.setattr(runner.visualizer, "add_datasample", fail)
        runner.train()
        assert runner.iter == 5
        assert list(validated(tmp_path)) == [2, 4, 5]
        lines = [x for x in capsys.readouterr().out.splitlines() if "cannot be drawn" in x]
        assert len(lines) == 2
        assert re.search(r"WARNING - .*\.jpg cannot be drawn: OSError: no space left", lines[0])

    def test_visualizer_that_draws_no_boxes(self, data, tmp_path):
        runner = make_runner(tmp_path, data, visualizer=None)
        runner.train()
        assert list(validated(tmp_path)) == [2, 4, 5]
        assert not pictures(tmp_path)


def train_in_two_processes(rank, data, folder):
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    runner = make_runner(
        Path(folder) / "run",
        data,
        launcher="pytorch",
        cfg={"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}},
    )
    drawn, add = [], runner.visualizer.add_datasample
    runner.visualizer.add_datasample = lambda name, *a, **k: (
        drawn.append(name),
        add(name, *a, **k),
    )
    model = runner.train().module
    said = [drawn, model.layers[0].weight.flatten().tolist()]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(data, tmp_path):
    """The main process draws of its share; an image that the other cannot read is named too."""
    alone = make_runner(tmp_path / "alone", data)
    lost = Path(alone.val_dataloader.dataset.get_data_info(1)["img_path"])
    lost.unlink()
    processes = [
        forked.SERVER.Process(target=train_in_two_processes, args=(rank, data, str(tmp_path)))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()  # if it is still there
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    (drawn, weights), (none, same) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert drawn == ["val_img_1", "val_img_3"] * 3
    assert none == []
    assert weights == same
    assert steps_shown(tmp_path / "run") == {1: [2, 4, 5], 3: [2, 4, 5]}
    assert list(validated(tmp_path / "run")) == [2, 4, 5]
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert log.read_text().count("1 of 7 held-out images are left out") == 1
    assert f"their batches cannot be read: {lost}" in log.read_text()
