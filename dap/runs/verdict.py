"""Judging by statistics whether boxes look like those of a useful run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import print_log

from dap.store.shard import Shard, encode_shard
from dap.store.statistics import count_right, run_statistics
from dap.store.survey import NEARLY_ALL, TINY, Survey, survey_shards

NO_LABEL = "it has no class"  # reason of an image without boxes

# Measured on 63 photographs with EfficientNet-lite0, as top-1 and share of images with a box on
# nearly all of the image. Correct weights and normalisation: .89 and 0. ImageNet's usual mean and
# std: top-1 .79; BGR for RGB: .68. No normalisation: .05 and 17 %. Random weights, a random linear
# layer or shuffled classes: 0 and 40 to 65 %.
LOW_TOP1 = 0.2
MUCH_NEARLY_ALL, MUCH_TINY, MUCH_EMPTY = 0.1, 0.2, 0.05
# The lowest threshold of the rule 'extent' gives wider boxes: on 500 photographs, 16, 15 and 4 % of
# the images have such a box with EfficientNet-lite0, lite1 and lite2; with the paper's rule, less
# than half a per cent.
MUCH_NEARLY_ALL_OF_EXTENTS = 0.3
MANY_BOXES = 2.0  # per image and threshold
HOPELESS = 0.15  # minimum top-1, as a share of the range from chance to 1; less means a mistake


class Verdict(NamedTuple):
    """Judgement of a run by its statistics.

    Attributes:
        text: The statistics in one sentence.
        warnings: Statistics that no useful run has, each with what to check.
        hopeless: Why the boxes are worthless, with the likely causes; None if they are not.
    """

    text: str
    warnings: list[str]
    hopeless: str | None


def log_verdict(judged: Verdict, on: str = "") -> None:
    """Log a verdict with its warnings.

    Args:
        judged: The verdict.
        on: What was judged, if not the whole run, such as ``' on 200 images'``.
    """
    print_log(f"verdict{on}: {judged.text}", logger="current")
    for warning in judged.warnings:
        print_log(warning, "current", logging.WARNING)


def verdict_on_records(
    records: Sequence[Mapping[str, Any]],
    thresholds: Sequence[float],
    classes: int,
    rule: str | None = None,
) -> Verdict:
    """Judge some images of an unfinished run.

    Args:
        records: Records of the images, as :meth:`dap.store.writer.StoreWriter.write` takes them.
        thresholds: Thresholds of the run.
        classes: Number of classes.
        rule: The rule that turned maps into boxes.
    """
    rows = [{"id": number, **record} for number, record in enumerate(records, 1)]
    content = encode_shard(rows, {"statistics": {"right": count_right(rows)}})
    shards = [Shard("records in memory", content)]
    settings = {"thresholds": thresholds, "rule": rule}
    return verdict(survey_shards(shards, classes), {**run_statistics(shards), "settings": settings})


def verdict(survey: Survey, summary: Mapping[str, Any]) -> Verdict:
    """Judge the boxes of a run by their statistics.

    Args:
        survey: Survey of the store.
        summary: Content of ``summary.json``.
    """
    top1 = summary["top1"]
    text = (
        f"{_rate(summary)} boxes per image; a box covers more than {NEARLY_ALL:.0%} of the image "
        f"in {survey.share_nearly_all:.1%} of the images, one less than {TINY:.0%} in "
        f"{survey.share_tiny:.1%}; {survey.share_empty:.1%} have no box"
    )
    if top1 is not None:
        text += f"; the classifier's first guess is right on {top1:.1%}"
    return Verdict(text, list(_warnings(survey, summary)), _reason_to_stop(survey, summary))


def _reason_to_stop(survey: Survey, summary: Mapping[str, Any]) -> str | None:
    """Return why boxes are worthless, if the classifier is hardly better than chance, or None."""
    labelled = survey.images - summary.get("without_boxes", {}).get(NO_LABEL, 0)
    if summary["top1"] is None or labelled <= 0:
        return None
    top1, chance = summary["top1"] * survey.images / labelled, 1 / max(1, len(survey.class_boxes))
    if top1 >= chance + HOPELESS * (1 - chance):
        return None
    return (
        f"the classifier's first guess is right on {top1:.1%} of {labelled} images, where chance "
        f"alone gives {chance:.1%}: the boxes would be worthless. Likely causes: the "
        "normalisation (data_preprocessor: mean, std, to_rgb) is not the one the classifier was "
        "trained with; the labels of the images are in another order than the classifier's "
        "classes (name the folders in label order with --classes); the checkpoint is of another "
        "model or not trained"
    )


def _warnings(survey: Survey, summary: Mapping[str, Any]) -> Iterator[str]:
    settings = summary["settings"]
    top1, taus = summary["top1"], len(settings.get("thresholds", ()))
    extents = settings.get("rule") == "extent"
    much_nearly_all = MUCH_NEARLY_ALL_OF_EXTENTS if extents else MUCH_NEARLY_ALL
    if top1 is not None and top1 < LOW_TOP1:
        yield (
            f"the classifier is right on {top1:.1%} of the images: look whether normalisation "
            "(data_preprocessor), checkpoint and the order of the classes belong together"
        )
    for share, limit, what, advice in (
        (
            survey.share_nearly_all, much_nearly_all,
            f"a box on more than {NEARLY_ALL:.0%} of the image",
            "the maps may be flat: check some of them, the normalisation and the checkpoint",
        ),
        (
            survey.share_tiny, MUCH_TINY, f"a box on less than {TINY:.0%} of the image",
            "the maps may be noise: check some of them, the normalisation and the checkpoint",
        ),
        (survey.share_empty, MUCH_EMPTY, "no box", "summary.json has the reasons"),
    ):  # fmt: skip
        if share > limit:
            yield f"{share:.1%} of the images have {what}: {advice}"
    rate = summary["merged"]["boxes_per_image"] or 0
    if taus and rate > MANY_BOXES * taus:
        yield (
            f"{rate} boxes per image at {taus} threshold(s); the paper has 0.8 per threshold: the "
            "maps may be noise, or NMS may be off"
        )


def _rate(summary: Mapping[str, Any]) -> str:
    rate = summary["merged"]["boxes_per_image"]
    return "no" if rate is None else f"{rate:.2f}"
