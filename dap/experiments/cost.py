"""What experiments cost in GPU hours: the paper's figures, and estimates from images and pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config

from .jobs import Job
from .paper import PRETRAIN

# Hours x GPUs that the paper reports (section 4.1): for ResNet-50.
REPORTED = {
    "boxes_resnet50_in1k": 13 / 60 * 64,
    "boxes_resnet50_in14m": 2.3 * 64,
    PRETRAIN: 1.8 * 16,
    "faster-rcnn_r50_fpn_444k_in14m-boxes": 17.6 * 16,
}
CLASSIFIER_HOURS_PER_IMAGE = 7 * 16 / (90 * 1281167)  # its reference, ResNet-50
R101 = 1.5  # times the cost of ResNet-50, roughly
# Images of an epoch, where the schedule counts epochs: end of the config's name → images.
EPOCHS = {
    "voc07": 5011,
    "voc0712": 16551,
    "voc07-pseudo12": 16551,
    "in200-det": 333000,
    "in14m": 14197122,
}


def gpu_hours(job: Job) -> tuple[float, bool]:
    """GPU hours of a job.

    Trainings that the paper does not time are estimated by the pixels they see, at the pace of
    the paper's pre-training, which is an upper bound for larger images. Tests and files are free.

    Returns:
        Hours, and whether the paper reports them.
    """
    config = job.config
    if config is None or job.kind not in ("boxes", "train"):
        return 0.0, False
    name = str(config.filename).rsplit("/", 1)[-1].removesuffix(".py")
    reported = REPORTED.get(name.removesuffix("_candidates"))
    if reported is not None:
        return reported, True
    deeper = R101 if "101" in name else 1.0
    if job.kind == "boxes":
        shallow = name.replace("resnet101", "resnet50")
        return deeper * REPORTED[shallow], False
    images = _images(job, name)
    if config.model.type == "ImageClassifier":
        return deeper * images * CLASSIFIER_HOURS_PER_IMAGE, False
    return deeper * images * _pixels(config) / _pretraining_pace(), False


def total(jobs: Iterable[Job]) -> float:
    """GPU hours of some jobs."""
    return sum(gpu_hours(job)[0] for job in jobs)


def _pretraining_pace() -> float:
    """Pixels an hour and GPU, from the paper's Step 3."""
    pixels = sum(_area(short) for short in (96, 160, 320, 640)) / 4
    return 40038 * 32 * pixels / REPORTED[PRETRAIN]


def _images(job: Job, name: str) -> float:
    """Images that a training sees."""
    assert job.config is not None
    train = job.config.train_cfg
    if "max_iters" in train:
        return float(train.max_iters * job.batch)
    ends = sorted((end for end in EPOCHS if name.endswith(end)), key=len)
    return float(train.max_epochs * EPOCHS[ends[-1]])


def _pixels(config: Config) -> float:
    """Mean pixels of a training image."""
    for step in _steps(config.train_dataloader.dataset):
        if "scales" in step:
            return sum(_area(min(scale)) for scale in step["scales"]) / len(step["scales"])
        if "scale" in step:
            return _area(min(step["scale"]))
    raise ValueError(f"{config.filename}: no Resize in the training pipeline")


def _steps(dataset: Any) -> Iterator[Any]:
    if "pipeline" in dataset:
        yield from dataset["pipeline"]
    for child in dataset.get("datasets", ()):
        yield from _steps(child)


def _area(short: float) -> float:
    """Pixels of a 4:3 image of this short side."""
    return short * short * 4 / 3
