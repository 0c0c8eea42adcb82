"""Pictures of training images: where they go, what is in them, and that training never notices."""

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
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from dap.evaluation.evaluate import evenly_spread
from dap.hooks.detector_pictures_hook import DetectorPicturesHook
from dap.testing import make_coco
from tests.support.workplace import CONFIGS, SERVER, SMALL_FASTER_RCNN, SMALL_STEP_3, make_store

PRETRAIN = CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py"
PALETTE_RGB = [(255, 0, 255), (255, 255, 0), (0, 255, 255)]  # unlike those of the objects
SIZE_HW = (96, 128)  # of all images
SEEN = (32, 24, 96, 72)  # what a Spotter sees, xyxy in the image
LINE = 2  # half the width of mmdet's lines, in whole pixels
ITERATIONS = {"type": "IterBasedTrainLoop", "max_iters": 5}
EPOCHS = {"type": "EpochBasedTrainLoop", "max_epochs": 2}  # of three iterations
LOCAL, TENSORBOARD = {"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}
LOADING = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (64, 48), "keep_ratio": True},
    {"type": "PackDetInputs"},
]


class Spotter(BaseModel):
    """Sees the middle of what it is given; the surer of something else, the longer it trains.

    It draws random numbers wherever mmdet might.
    """

    def __init__(self):
        super().__init__({"type": "mmdet.DetDataPreprocessor"})
        self.layers = nn.Sequential(
            nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Dropout2d(0.5)
        )
        self.register_buffer("steps", torch.zeros(()))
        self.given = []

    def forward(self, inputs, data_samples, mode):
        level = self.layers(inputs / 255).mean() + random.random() + np.random.rand()
        if mode == "loss":
            self.steps += 1
            return {"loss": (level + torch.rand(())).square()}
        assert not level.requires_grad
        assert not any(module.training for module in self.modules())
        height, width = inputs.shape[2:]
        self.given.append((height, width))
        for sample in data_samples:
            factor = torch.tensor(sample.scale_factor).repeat(2)
            middle = torch.tensor([width, height, 3 * width, 3 * height]) / 4 / factor
            sample.pred_instances = InstanceData(
                bboxes=torch.stack([middle, middle / 2]),
                scores=torch.stack([torch.tensor(0.9), self.steps / 8 + torch.rand(()) / 100]),
                labels=torch.tensor([0, 1]),
            )
        return data_samples


class Broken(Spotter):
    """Cannot predict."""

    def forward(self, inputs, data_samples, mode):
        super().forward(inputs, data_samples, mode)
        raise RuntimeError("no such kernel")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images, the first without a box, as COCO and as a store."""
    root = tmp_path_factory.mktemp("data")
    make_store(make_coco(root), root / "boxes")
    return root


def stored(data, **settings):
    return {
        "type": "dap.PseudoBoxDataset",
        "ann_file": str(data / "boxes"),
        "data_prefix": {"img": f"{data}/images/"},
        "metainfo": {"classes": (), "palette": PALETTE_RGB},
        "pipeline": [
            *LOADING,
            {"type": "RandomChoiceResize", "scales": [(64, 48), (64, 24)], "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
        **settings,
    }


def coco(data):
    return stored(data, type="dap.CheckedCocoDataset", ann_file=str(data / "annotations.json"))


def wrapped(data, kind):
    """The six images in one of the wrappers."""
    if kind == "ConcatDataset":
        return {"type": kind, "datasets": [stored(data, indices=3), stored(data)]}
    if kind == "MultiImageMixDataset":
        inner = stored(data, pipeline=LOADING)
        return {"type": kind, "dataset": inner, "pipeline": [{"type": "PackDetInputs"}]}
    extra = {"times": 2} if kind == "RepeatDataset" else {"oversample_thr": 0.9}
    return {"type": kind, "dataset": stored(data), **extra}


def make_runner(work_dir, dataset, loop=ITERATIONS, model=None, hook=None, **settings):
    """A runner that shows two images every two iterations; ``hook=False`` for none."""
    pictures = {"type": "dap.DetectorPicturesHook", "num_images": 2, "interval": 2}
    pictures |= {"pipeline": PIPELINE, **(hook or {})}
    sampler = "InfiniteSampler" if loop["type"] == "IterBasedTrainLoop" else "DefaultSampler"
    return Runner(
        **{
            "model": model or Spotter(),
            "work_dir": str(work_dir),
            "experiment_name": work_dir.name,  # MMEngine knows visualizers by it
            "default_scope": "mmdet",
            "train_dataloader": {
                "dataset": dataset,
                "batch_size": 2,
                "num_workers": 0,
                "sampler": {"type": sampler, "shuffle": True},
                "collate_fn": {"type": "pseudo_collate"},
            },
            "train_cfg": loop,
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
            "default_hooks": {"logger": {"type": "LoggerHook", "interval": 1}},
            "custom_hooks": [] if hook is False else [pictures],
            "visualizer": {"type": "DetLocalVisualizer", "vis_backends": [dict(LOCAL)]},
            "randomness": {"seed": 3},
            **settings,
        }
    )


def start(runner):
    """Do what a runner with validation does up to the first iteration."""
    dataset = runner.train_loop.dataloader.dataset
    runner.visualizer.dataset_meta = {"classes": ("of", "validation")}
    runner.call_hook("before_train")
    return dataset


def pictures(work_dir):
    """File name → picture, RGB."""
    paths = work_dir.rglob("vis_image/*.png")
    return {path.stem: cv2.imread(str(path))[..., ::-1] for path in paths}


def steps_shown(work_dir):
    """Index → the steps at which the image was shown."""
    steps = {}
    for stem in pictures(work_dir):
        index, step = map(int, re.fullmatch(r"train_img_(\d+)_(\d+)", stem).groups())
        steps.setdefault(index, []).append(step)
    return {index: sorted(steps[index]) for index in sorted(steps)}


def extent(picture, colour_rgb):
    """What is drawn in a colour: first and last column and row, or None."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colour_rgb).max(axis=2) < 60)
    if len(rows) == 0:
        return None
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def lines_around(*boxes):
    """The extent of the lines around boxes, as far as they lie in the image."""
    boxes = np.array(boxes)
    span = [*boxes[:, :2].min(axis=0) - LINE, *boxes[:, 2:].max(axis=0) + LINE - 1]
    last = np.array(SIZE_HW[::-1] * 2) - 1
    return np.clip(span, 0, last)


class TestPictures:
    @pytest.mark.parametrize("kind", [stored, coco])
    def test_boxes_stand_where_the_data_set_has_them(self, data, tmp_path, kind):
        runner = make_runner(tmp_path, kind(data), hook={"num_images": 6})
        dataset, found, boxes = start(runner), pictures(tmp_path), 0
        assert sorted(found) == [f"train_img_{index}_0" for index in range(6)]
        for index in range(6):
            left, right = np.split(found[f"train_img_{index}_0"], 2, axis=1)
            assert left.shape[:2] == SIZE_HW
            for label, colour in enumerate(PALETTE_RGB):
                instances = dataset.get_data_info(index)["instances"]
                own = [box["bbox"] for box in instances if box["bbox_label"] == label]
                boxes += len(own)
                if own:
                    np.testing.assert_allclose(extent(left, colour), lines_around(*own), atol=1)
                else:
                    assert extent(left, colour) is None
            np.testing.assert_allclose(extent(right, PALETTE_RGB[0]), lines_around(SEEN), atol=1)
            assert extent(right, PALETTE_RGB[1]) is None  # its score is below .3
        assert boxes == 10

    @pytest.mark.parametrize(
        ("loop", "last"), [(ITERATIONS, 5), (EPOCHS, 6)], ids=["iter", "epoch"]
    )
    def test_steps(self, data, tmp_path, loop, last):
        """Before, every two iterations, and at the end, once."""
        make_runner(tmp_path, stored(data), loop).train()
        expected = [0, 2, 4, last]
        assert steps_shown(tmp_path) == {1: expected, 4: expected}
        found = pictures(tmp_path)
        left, right = zip(*(np.split(found[f"train_img_4_{s}"], 2, axis=1) for s in expected),
                          strict=True)  # fmt: skip
        assert all(np.array_equal(one, left[0]) for one in left)  # the same image, not augmented
        sure = [extent(one, PALETTE_RGB[1]) is not None for one in right]
        assert sure == [False, False, True, True]  # score 0, .25, .5, above

    def test_ignored_boxes_are_not_shown(self, data, tmp_path):
        content = json.loads((data / "annotations.json").read_text())
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(annotation["image_id"] == 11)
        (tmp_path / "crowd.json").write_text(json.dumps(content))
        start(make_runner(tmp_path, coco(data) | {"ann_file": str(tmp_path / "crowd.json")}))
        found = [
            np.split(picture, 2, axis=1)[0] for _, picture in sorted(pictures(tmp_path).items())
        ]
        drawn = [any(extent(one, colour) for colour in PALETTE_RGB) for one in found]
        assert drawn == [False, True]

    def test_pipeline_of_the_test_set(self, data, tmp_path):
        """No annotation is missed that it loads, and boxes stay in pixels of the image."""
        resize = {"type": "Resize", "scale": (32, 24), "keep_ratio": True}
        pipeline = [LOADING[0], resize, LOADING[1], {"type": "PackDetInputs"}]
        inner = {"type": "RepeatDataset", "dataset": {"pipeline": pipeline}}
        cfg = {"val_dataloader": {"dataset": inner}}
        runner = make_runner(tmp_path, stored(data), hook={"pipeline": None}, cfg=cfg)
        start(runner)
        assert set(runner.model.given) == {(24, 32)}
        for picture in pictures(tmp_path).values():
            right = np.split(picture, 2, axis=1)[1]
            np.testing.assert_allclose(extent(right, PALETTE_RGB[0]), lines_around(SEEN), atol=1)

    @pytest.mark.parametrize(
        ("pipeline", "size_hw"), [(PIPELINE, (48, 64)), (None, (800, 1067))], ids=["own", "default"]
    )
    def test_pipeline_without_a_test_set(self, data, tmp_path, pipeline, size_hw):
        runner = make_runner(tmp_path, stored(data), hook={"pipeline": pipeline})
        start(runner)
        assert runner.model.given == [size_hw] * 2

    def test_pipeline_of_floating_point_numbers(self, data, tmp_path):
        """CenterNet's test pipeline refuses whole numbers."""
        crop = {"type": "RandomCenterCropPad", "ratios": None, "border": None, "test_mode": True}
        crop |= {"mean": [0, 0, 0], "std": [1, 1, 1], "to_rgb": True}
        pipeline = [
            LOADING[0] | {"to_float32": True},
            crop | {"test_pad_mode": ["logical_or", 31], "test_pad_add_pix": 1},
            {"type": "Resize", "scale_factor": 1.0, "keep_ratio": True},
            {"type": "PackDetInputs"},
        ]
        runner = make_runner(tmp_path, stored(data), hook={"pipeline": pipeline})
        start(runner)
        assert runner.model.given == [(128, 160)] * 2  # (96 | 31) + 1, (128 | 31) + 1

    @pytest.mark.parametrize(
        ("kind", "indices"),
        [
            ("RepeatDataset", [3, 9]),
            ("ClassBalancedDataset", None),
            ("ConcatDataset", [2, 6]),
            ("MultiImageMixDataset", [1, 4]),
        ],
    )
    def test_wrappers(self, data, tmp_path, kind, indices):
        runner = make_runner(tmp_path, wrapped(data, kind))
        dataset = start(runner)
        assert len(dataset) > 6 or kind == "MultiImageMixDataset"
        assert list(steps_shown(tmp_path)) == (indices or evenly_spread(len(dataset), 2))

    def test_unreadable_image(self, data, tmp_path, capsys):
        content = json.loads((data / "annotations.json").read_text())
        content["images"][1]["file_name"] = "torn.jpg"
        (tmp_path / "torn.json").write_text(json.dumps(content))
        whole = (data / "images" / "000001.jpg").read_bytes()
        (data / "images" / "torn.jpg").write_bytes(whole[: len(whole) // 2])
        dataset = coco(data) | {"ann_file": str(tmp_path / "torn.json")}
        start(make_runner(tmp_path, dataset))
        assert steps_shown(tmp_path) == {4: [0]}
        (line,) = (
            x for x in capsys.readouterr().out.splitlines() if "WARNING" in x and "torn" in x
        )
        assert f"train_img_1 is left out of the pictures: {data}/images/torn.jpg cannot be" in line
        assert "cut off" in line

    def test_the_log_says_which_images(self, data, tmp_path, capsys):
        start(make_runner(tmp_path, stored(data)))
        assert (
            "pictures every 2 iterations, left the boxes of the data set, right the detector's: "
            f"train_img_1 = {data}/images/000001.jpg, train_img_4 = {data}/images/000004.jpg"
        ) in capsys.readouterr().out

    def test_none(self, data, tmp_path):
        runner = make_runner(tmp_path, stored(data), hook={"num_images": 0})
        runner.train()
        assert runner.model.given == []
        assert pictures(tmp_path) == {}

    def test_resumed(self, data, tmp_path):
        two, three = (dict(ITERATIONS, max_iters=count) for count in (2, 3))
        first = make_runner(tmp_path / "first", stored(data), two)
        first.train()
        first.save_checkpoint(str(tmp_path), "two.pth")
        settings = {"hook": {"interval": 50}, "resume": True, "load_from": f"{tmp_path}/two.pth"}
        make_runner(tmp_path / "second", stored(data), three, **settings).train()
        assert steps_shown(tmp_path / "second")[1] == [2, 3]


class TestTrainingIsTheSame:
    """To the last bit, and on."""

    def losses(self, work_dir):
        (log,) = work_dir.rglob("vis_data/scalars.json")
        logged = map(json.loads, log.read_text().splitlines())
        return [line["loss"] for line in logged if "loss" in line]  # the others are validations

    def compare(self, tmp_path, make):
        weights, states = [], []
        for name, hook in (("with", None), ("without", False)):
            torch.manual_seed(0)  # of a model that is there before the runner
            runner = make(tmp_path / name, hook)
            runner.train()
            weights.append(runner.model.state_dict())
            states.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
        shown, plain = weights
        assert shown.keys() == plain.keys()
        assert all(torch.equal(shown[name], plain[name]) for name in plain)
        assert self.losses(tmp_path / "with") == self.losses(tmp_path / "without")
        assert states[0] == states[1]
        assert len(pictures(tmp_path / "with")) >= 6
        assert pictures(tmp_path / "without") == {}
        return self.losses(tmp_path / "with")

    @pytest.mark.parametrize("loop", [ITERATIONS, EPOCHS], ids=["iter", "epoch"])
    def test_of_a_detector_that_draws_random_numbers(self, data, tmp_path, loop):
        losses = self.compare(
            tmp_path, lambda work_dir, hook: make_runner(work_dir, stored(data), loop, hook=hook)
        )
        assert len(set(losses)) == len(losses) > 4

    def test_of_the_config(self, data, tmp_path):
        self.compare(tmp_path, lambda *arguments: from_config(data, *arguments))

    def test_state_comes_back_after_an_error(self, data, tmp_path):
        runner = make_runner(tmp_path, stored(data), model=Broken())
        runner.train_loop  # noqa: B018 - makes the data loader
        meta = runner.visualizer.dataset_meta = {"classes": ("of", "validation")}
        runner.model.layers[1].eval()
        before = [module.training for module in runner.model.modules()]
        states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
        with pytest.raises(RuntimeError, match="no such kernel"):
            runner.call_hook("before_train")
        assert [module.training for module in runner.model.modules()] == before
        assert len(set(before)) == 2
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
        assert runner.visualizer.dataset_meta is meta


def from_config(data, work_dir, hook):
    """A runner of the pre-training config, made small by options."""
    config = Config.fromfile(PRETRAIN)
    options = [*SMALL_FASTER_RCNN, *SMALL_STEP_3, "model.backbone.init_cfg=None"]
    options += ["model.roi_head.bbox_head.num_classes=3", "train_cfg.max_iters=2"]
    parse = DictAction._parse_iterable
    pairs = (option.split("=", 1) for option in options)
    config.merge_from_dict({name: parse(value) for name, value in pairs})
    dataset = stored(data)
    changes = {"ann_file": dataset["ann_file"], "data_prefix": dataset["data_prefix"]}
    config.train_dataloader.dataset.update(changes)
    pictures = {"type": "dap.DetectorPicturesHook", "num_images": 2, "interval": 1}
    config.default_hooks.pictures = {**pictures, "num_images": 0} if hook is False else pictures
    config.merge_from_dict(
        {
            "work_dir": str(work_dir),
            "experiment_name": work_dir.name,
            "visualizer.name": work_dir.name,
            "randomness": {"seed": 3},
            "default_hooks.logger.interval": 1,
        }
    )
    return Runner.from_cfg(config)


def test_tensorboard_by_one_line(data, tmp_path):
    """The same pictures and losses in TensorBoard and in files."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed: uv sync --extra tensorboard",
    )
    both = {"type": "DetLocalVisualizer", "vis_backends": [dict(LOCAL), dict(TENSORBOARD)]}
    make_runner(tmp_path / "run", stored(data), visualizer=both).train()
    (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    log = accumulator.EventAccumulator(str(events)).Reload()
    assert sorted(log.Tags()["images"]) == ["train_img_1", "train_img_4"]
    assert [event.step for event in log.Images("train_img_4")] == [0, 2, 4, 5]
    assert [event.step for event in log.Scalars("loss")] == [1, 2, 3, 4, 5]
    found = pictures(tmp_path / "run")
    for event in log.Images("train_img_4"):
        encoded = np.frombuffer(event.encoded_image_string, np.uint8)
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.array_equal(picture, found[f"train_img_4_{event.step}"])
    (scalars,) = (tmp_path / "run").rglob("vis_data/scalars.json")
    assert len(scalars.read_text().splitlines()) == 5


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_images": -1}, "num_images=-1; expected an integer from 0"),
            ({"interval": 0}, "interval=0; expected an integer from 1"),
            ({"interval": 0.5}, "interval=0.5; expected an integer from 1"),
            ({"score_thr": 30}, "score_thr=30; expected a score from 0 to 1"),
        ],
    )
    def test_arguments(self, settings, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            DetectorPicturesHook(**settings)


class TestNothingToDraw:
    """A warning says why there are no pictures, and training goes on."""

    def check(self, runner, message, capsys):
        runner.train()
        assert runner.iter == 5
        (line,) = (x for x in capsys.readouterr().out.splitlines() if "no pictures of" in x)
        assert message in line
        assert pictures(Path(runner.work_dir)) == {}

    def test_visualizer_that_draws_no_boxes(self, data, tmp_path, capsys):
        plain = make_runner(tmp_path, stored(data), visualizer=None)
        self.check(plain, "Visualizer draws no boxes; take mmdet's: visualizer=dict", capsys)

    def test_pipeline_that_does_not_load(self, data, tmp_path, capsys):
        runner = make_runner(tmp_path, stored(data), hook={"pipeline": [{"type": "PackDetInputs"}]})
        self.check(runner, "begins with PackDetInputs; begin it with LoadImageFromFile", capsys)

    def test_data_sets_of_different_classes(self, data, tmp_path, capsys):
        other = stored(data)
        other["metainfo"] = {"classes": (), "palette": "random"}
        both = {"type": "ConcatDataset", "datasets": [stored(data), other]}
        self.check(make_runner(tmp_path, both), "ConcatDataset has no get_data_info with", capsys)

    @pytest.mark.parametrize("kind", ["hidden", "arrays"])
    def test_data_set_without_files(self, data, tmp_path, capsys, kind):
        path = tmp_path / "arrays.json"
        path.write_text(json.dumps({"metainfo": {}, "data_list": [{"array": 0}]}))
        dataset = Hidden() if kind == "hidden" else BaseDataset(str(path), data_prefix={})
        start(make_runner(tmp_path, dataset))
        assert "has no get_data_info with image files (img_path)" in capsys.readouterr().out

    def test_model_of_which_a_process_has_a_part(self, data, tmp_path, one_process, capsys):
        runner = make_runner(tmp_path, stored(data))
        runner.model.layers = nn.parallel.DistributedDataParallel(runner.model.layers)
        start(runner)
        assert "Spotter needs all processes to predict; take MMDist" in capsys.readouterr().out
        assert runner.model.given == []


class Hidden(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def train_in_two_processes(rank, data, folder):
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    runner = make_runner(
        Path(folder),
        stored(data),
        launcher="pytorch",
        cfg={"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}},
    )
    model = runner.train().module
    said = [len(model.given), model.layers[0].weight.flatten().tolist()]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


def test_another_process_computes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr("dap.hooks.detector_pictures_hook.is_main_process", lambda: False)
    runner = make_runner(tmp_path, stored(data))
    runner.train()
    assert runner.model.given == []
    assert pictures(tmp_path) == {}


@pytest.mark.slow
def test_two_processes(data, tmp_path):
    """The one that does not draw does not wait either, and both get the same weights."""
    processes = [
        SERVER.Process(target=train_in_two_processes, args=(rank, data, str(tmp_path)))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()  # if it is still there
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    (drawn, weights), (none, same) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert (drawn, none) == (8, 0)  # the main process alone
    assert weights == same
    assert steps_shown(tmp_path) == {1: [0, 2, 4, 5], 4: [0, 2, 4, 5]}
