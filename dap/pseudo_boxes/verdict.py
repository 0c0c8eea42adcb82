"""A few words on whether boxes look like those of a useful run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.logging import print_log

from .store import PseudoBoxStore
from .survey import NEARLY_ALL, TINY, Survey, survey

# Measured on 63 photographs with EfficientNet-lite0: right weights and normalisation give a top-1
# of .89 and no box on nearly all of an image; ImageNet's usual mean and std .79, BGR for RGB .68.
# Images that are not normalised: .05, and such boxes on 17 % of the images; random weights, a
# random linear layer or shuffled classes: 0, and 40 to 65 %.
LOW_TOP1 = 0.2
MUCH_NEARLY_ALL, MUCH_TINY, MUCH_EMPTY = 0.1, 0.2, 0.05
MANY_BOXES = 2.0  # per image and threshold


class Verdict(NamedTuple):
    """What the numbers of a run say.

    Attributes:
        text: One sentence of numbers.
        warnings: Where they are unlike those of any useful run, and what to look at.
    """

    text: str
    warnings: list[str]


def log_verdict(store: PseudoBoxStore, summary: Mapping[str, Any]) -> None:
    """Log the verdict on a finished run."""
    judged = verdict(survey(store), summary)
    print_log(f"verdict: {judged.text}", logger="current")
    for warning in judged.warnings:
        print_log(warning, "current", logging.WARNING)


def verdict(seen: Survey, summary: Mapping[str, Any]) -> Verdict:
    """Judge the boxes of a run by their numbers alone.

    Args:
        seen: The survey of its store.
        summary: Content of ``summary.json``.
    """
    top1 = summary["top1"]
    text = (
        f"{_rate(summary)} boxes an image; a box covers more than {NEARLY_ALL:.0%} of the image in "
        f"{seen.share_nearly_all:.1%} of the images, one less than {TINY:.0%} in "
        f"{seen.share_tiny:.1%}; {seen.share_empty:.1%} have no box"
    )
    if top1 is not None:
        text += f"; the classifier's first guess is right on {top1:.1%}"
    return Verdict(text, list(_warnings(seen, summary)))


def _warnings(seen: Survey, summary: Mapping[str, Any]) -> Iterator[str]:
    top1, taus = summary["top1"], len(summary["settings"].get("thresholds", ()))
    if top1 is not None and top1 < LOW_TOP1:
        yield (
            f"the classifier is right on {top1:.1%} of the images: look whether normalisation "
            "(data_preprocessor), checkpoint and the order of the classes belong together"
        )
    for share, limit, what, look in (
        (
            seen.share_nearly_all, MUCH_NEARLY_ALL, f"a box on more than {NEARLY_ALL:.0%} of them",
            "the maps may be flat: look at some, and at normalisation and checkpoint",
        ),
        (
            seen.share_tiny, MUCH_TINY, f"a box on less than {TINY:.0%} of them",
            "the maps may be noise: look at some, and at normalisation and checkpoint",
        ),
        (seen.share_empty, MUCH_EMPTY, "no box at all", "the reasons stand in summary.json"),
    ):  # fmt: skip
        if share > limit:
            yield f"{share:.1%} of the images have {what}: {look}"
    rate = summary["merged"]["boxes_per_image"] or 0
    if taus and rate > MANY_BOXES * taus:
        yield (
            f"{rate} boxes an image at {taus} threshold(s), the paper has .8 a threshold: the maps "
            "may be noise, or NMS is off"
        )


def _rate(summary: Mapping[str, Any]) -> str:
    rate = summary["merged"]["boxes_per_image"]
    return "no" if rate is None else f"{rate:.2f}"
