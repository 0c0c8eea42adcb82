"""Boxes of the same images for each threshold and each NMS (paper, Tables and Figures A1, A2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dap.cam import box_candidates, threshold_name
from dap.cam.boxes import Candidates
from dap.pseudo_boxes.records import merged_boxes, rounded
from dap.pseudo_boxes.settings import PseudoBoxSettings
from dap.store.reader import PseudoBoxStore
from dap.store.statistics import mean_sizes, size_sums

from .store_pictures import StoredImage, StorePictures

NMS_IOUS = (0.5, 0.6, 0.7, 0.8, 0.9, None)  # Table A2; None is no NMS, 1.0 in the paper
PAPER_A1 = {  # boxes per image, mean width and height in pixels
    "0.2": (1.019, 339.9, 280.3), "0.3": (1.046, 296.5, 242.1), "0.4": (1.096, 250.4, 202.0),
    "0.5": (1.161, 199.6, 160.7), "all": (3.211, 253.4, 208.0),
}  # fmt: skip
PAPER_A2 = {
    "0.5": (2.047, 258.9, 215.6), "0.6": (2.308, 256.2, 212.3), "0.7": (2.661, 254.2, 209.7),
    "0.8": (3.211, 253.4, 208.0), "0.9": (3.966, 260.9, 212.3), "none": (4.321, 269.6, 219.3),
}  # fmt: skip

LabelCandidates = list[tuple[int, Candidates]]  # label and its boxes before NMS
FindCandidates = Callable[[StoredImage], LabelCandidates | None]


def candidate_finder(store: PseudoBoxStore, pictures: StorePictures) -> FindCandidates | None:
    """Choose how to get all boxes of an image before NMS: from the store, or from the maps.

    Returns:
        Function that returns label → candidates of an image, or None for an unreadable image. None
        in place of the function if the store was merged by NMS and there is no classifier.
    """
    if store.manifest["settings"].get("nms_iou", 0) is None:
        return stored_candidates
    if pictures.maps is None:
        return None
    settings = PseudoBoxSettings.from_store(store)
    return lambda image: _map_candidates(image, pictures, settings)


def boxes_under(
    by_label: LabelCandidates,
    settings: PseudoBoxSettings,
    taus: Iterable[int],
    nms_iou: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that a run with some of the thresholds and another NMS would have.

    Args:
        by_label: Candidates of an image, by label.
        settings: Settings of the run.
        taus: Indices of the thresholds.
        nms_iou: IoU threshold of the merging NMS; None for no NMS.

    Returns:
        Boxes, xyxy, half-open, in pixels, shape (N, 4), and the index of τ of each box, shape (N,).
    """
    selected = list(taus)
    candidates_left = []
    for label, candidates in by_label:
        kept = np.isin(candidates.thresholds, selected)
        candidates_left.append(
            (label, Candidates(candidates.boxes[kept], candidates.thresholds[kept]))
        )
    rows = merged_boxes(candidates_left, replace(settings, nms_iou=nms_iou))["boxes"]
    boxes = np.array(rows, np.float64).reshape(-1, 6)
    return boxes[:, :4], boxes[:, 5].astype(int)


def table_a1(by_image: Sequence[LabelCandidates], settings: PseudoBoxSettings) -> list[list[str]]:
    """Rows of Table A1 for some images: each threshold, and all; this run and the paper.

    The paper's figures of single thresholds are shown only if the run's thresholds are values of τ.

    Args:
        by_image: Candidates of each image, by label.
        settings: Settings of the run.
    """
    all_taus = range(len(settings.thresholds))
    columns = [*([i] for i in all_taus), all_taus]
    rows = [_figures_under(by_image, settings, taus, settings.nms_iou) for taus in columns]
    title = f"all, NMS {'none' if settings.nms_iou is None else settings.nms_iou}"
    titles = [threshold_name(threshold, settings.rule) for threshold in settings.thresholds]
    names = [*map(str, settings.thresholds), "all"]
    paper = {"all": PAPER_A1["all"]} if settings.rule == "extent" else PAPER_A1
    return _table([*titles, title], names, rows, paper)


def table_a2(by_image: Sequence[LabelCandidates], settings: PseudoBoxSettings) -> list[list[str]]:
    """Rows of Table A2 for some images: all thresholds with each NMS; this run and the paper.

    Args:
        by_image: Candidates of each image, by label.
        settings: Settings of the run.
    """
    all_taus = range(len(settings.thresholds))
    rows = [_figures_under(by_image, settings, all_taus, nms_iou) for nms_iou in NMS_IOUS]
    names = ["none" if iou is None else str(iou) for iou in NMS_IOUS]
    return _table([f"NMS {name}" for name in names], names, rows, PAPER_A2)


def _figures_under(
    by_image: Sequence[LabelCandidates],
    settings: PseudoBoxSettings,
    taus: Iterable[int],
    nms_iou: float | None,
) -> list[str]:
    selected = list(taus)
    boxes = [boxes_under(candidates, settings, selected, nms_iou)[0] for candidates in by_image]
    sums = size_sums(np.concatenate([np.zeros((0, 4)), *boxes]))
    return _figures(mean_sizes(sums, len(by_image)))


def _table(
    titles: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    paper: dict[str, tuple[float, float, float]],
) -> list[list[str]]:
    """Head, then three quantities; this run's row is above the paper's."""
    lines = [["", *titles]]
    for i, quantity in enumerate(("boxes per image", "mean width, px", "mean height, px")):
        decimals = 3 if i == 0 else 1
        printed = [f"{paper[n][i]:.{decimals}f}" if n in paper else "" for n in names]
        lines.append([f"{quantity}: this run", *(figures[i] for figures in rows)])
        lines.append([f"{quantity}: paper, ImageNet, R-50", *printed])
    return lines


def _figures(row: dict[str, Any]) -> list[str]:
    texts = []
    for name, decimals in (("boxes_per_image", 3), ("mean_width", 1), ("mean_height", 1)):
        texts.append("–" if row[name] is None else f"{row[name]:.{decimals}f}")
    return texts


def stored_candidates(image: StoredImage) -> LabelCandidates:
    """All boxes of an image, from a store that was made without NMS."""
    return [
        (int(label), Candidates(image.boxes[of_label], image.thresholds[of_label]))
        for label in np.unique(image.labels)
        for of_label in [image.labels == label]
    ]


def _map_candidates(
    image: StoredImage, pictures: StorePictures, settings: PseudoBoxSettings
) -> LabelCandidates | None:
    """Compute the candidates as :func:`dap.pseudo_boxes.records.image_record` does."""
    by_label = []
    for label in np.unique(image.labels).tolist():
        cam = pictures.merged(image, label)
        if cam is None:
            return None
        grid = cam.cell_size, image.size_hw
        values = cam.maps[0].cpu().numpy()
        by_label.append(
            (label, rounded(box_candidates(values, settings.thresholds, settings.rule, *grid)))
        )
    return by_label
