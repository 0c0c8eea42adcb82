"""GPU hours of the paper's configs: reported by the paper, or estimated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dap.jobs.jobs import Job


class Cost(NamedTuple):
    """GPU hours of a job.

    Attributes:
        hours: GPU hours on the paper's hardware; None if they are not known.
        reported: Whether the paper reports them.
    """

    hours: float | None
    reported: bool


# Hours x GPUs that the paper reports (section 4.1), for ResNet-50.
REPORTED = {
    "boxes_resnet50_in1k": 13 / 60 * 64,
    "boxes_resnet50_in1k_candidates": 13 / 60 * 64,
    "boxes_resnet50_in14m": 2.3 * 64,
    "faster-rcnn_r50_fpn_40k_in1k-boxes": 1.8 * 16,
    "faster-rcnn_r50_fpn_444k_in14m-boxes": 17.6 * 16,
}
# Estimates for ResNet-50: end of the config's name → GPU hours. Detectors: number of images x mean
# pixels, at the speed of faster-rcnn_r50_fpn_40k_in1k-boxes (40,038 x 32 images of 182,272 pixels
# in 28.8 hours), which is an upper bound for larger images. Classifiers: at the speed of 112 hours
# for 90 epochs of 1,281,167 images.
ESTIMATED = {
    "_64xb128_in14m": 7 * 16 * 50 * 14197122 / (90 * 1281167),
    "_40k_in1k-boxes": 28.8,
    "_40k_in1k-boxes_frozen-backbone": 28.8,
    "_444k_in14m-boxes": 319.13,
    "_80k_in1k-boxes": 57.6,
    "_5e_in200-det": 37.43,
    "_90k_coco": 151.54,
    "_270k_coco": 454.62,
    "_14e_voc07": 4.725,
    "_14e_voc0712": 15.61,
    "_4500it_voc07": 4.849,
    "_2e_voc07-pseudo12": 2.229,
}
PER_1000_ITERATIONS = {"coco": 1.6838, "voc": 1.0776}  # GPU hours of k-shot runs, batch size 16
R101 = 1.5  # times the cost of ResNet-50, roughly


def gpu_hours(job: Job) -> Cost:
    """GPU hours of a job, those of the paper's config of the same name, even if yours differs.

    Only the length of k-shot fine-tunings is read from the job, since ``--iterations`` changes it.
    Tests and files cost nothing.
    """
    config = job.config
    if config is None or job.kind not in ("boxes", "train"):
        return Cost(0.0, False)
    name = str(config.filename).rsplit("/", 1)[-1].removesuffix(".py")
    if name in REPORTED:
        return Cost(REPORTED[name], True)
    depth_factor = R101 if "101" in name else 1.0
    r50_name = name.replace("resnet101", "resnet50")
    if r50_name in REPORTED:
        return Cost(depth_factor * REPORTED[r50_name], False)
    per_1000 = next((PER_1000_ITERATIONS[d] for d in PER_1000_ITERATIONS if f"_{d}-" in name), None)
    if per_1000 is not None and "shot" in name:
        iterations = (config.get("train_cfg") or {}).get("max_iters")
        hours = None if iterations is None else per_1000 * iterations * job.batch / 16000
        return Cost(hours, False)
    hours = next((ESTIMATED[end] for end in ESTIMATED if name.endswith(end)), None)
    return Cost(None if hours is None else depth_factor * hours, False)


def describe_total(jobs: Iterable[Job]) -> str:
    """Describe the GPU hours of some jobs, and list the jobs whose cost is not known."""
    costs = {job.name: gpu_hours(job).hours for job in jobs}
    hours = sum(cost or 0.0 for cost in costs.values())
    text = f"about {hours:.0f} GPU hours in all with the paper's configs"
    unknown = [name for name, cost in costs.items() if cost is None]
    if unknown:
        text += f", without the steps of unknown cost: {', '.join(unknown)}"
    return text
