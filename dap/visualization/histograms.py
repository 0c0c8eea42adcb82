"""Histograms of the size, shape and number of the boxes of a store."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dap.store.survey import ASPECT_EDGES, SIDE_EDGES, Survey

MAX_BOXES = 10  # images with as many boxes or more share the last bar


def draw_histograms(survey: Survey) -> list[tuple[str, bytes]]:
    """Draw the distributions of a store's boxes.

    Returns:
        Titles and pictures (PNG): box size relative to the image, aspect ratio, boxes per image,
        and boxes per class.
    """
    return [(title, _png(draw, survey)) for title, draw in PANELS.items()]


def boxes_per_image(survey: Survey) -> list[int]:
    """Number of usable images with 0, 1, … and ``MAX_BOXES`` or more boxes."""
    counts = np.bincount(survey.counts[survey.usable].clip(max=MAX_BOXES), minlength=MAX_BOXES + 1)
    return [int(count) for count in counts]


def _sides(axes: Axes, survey: Survey) -> None:
    axes.stairs(survey.sides, SIDE_EDGES, fill=True)
    axes.set(xlabel="√(box area / image area)", ylabel="boxes", xlim=(0, 1))


def _aspects(axes: Axes, survey: Survey) -> None:
    axes.stairs(survey.aspects, ASPECT_EDGES, fill=True)
    ticks = (-3, -2, -1, 0, 1, 2, 3)
    axes.set(xlabel="width / height", ylabel="boxes", xticks=ticks)
    axes.set_xticklabels(["≤ 1/8", "1/4", "1/2", "1", "2", "4", "≥ 8"])


def _counts(axes: Axes, survey: Survey) -> None:
    axes.bar(range(MAX_BOXES + 1), boxes_per_image(survey))
    axes.set(xlabel="boxes in an image", ylabel="images", xticks=range(MAX_BOXES + 1))
    axes.set_xticklabels([*map(str, range(MAX_BOXES)), f"≥ {MAX_BOXES}"])


def _classes(axes: Axes, survey: Survey) -> None:
    falling = np.sort(survey.class_boxes)[::-1]
    axes.plot(np.arange(1, len(falling) + 1), falling, drawstyle="steps-mid")
    axes.set(xlabel="class, by falling number of boxes", ylabel="boxes", ylim=(0, None))


PANELS: dict[str, Callable[[Axes, Survey], None]] = {
    "Box size relative to the image": _sides,
    "Aspect": _aspects,
    "Boxes per image": _counts,
    "Boxes per class": _classes,
}


def _png(draw: Callable[[Axes, Survey], None], survey: Survey) -> bytes:
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes, survey)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
