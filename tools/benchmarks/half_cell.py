"""Measure the shift of activation maps by padding, and the effect of correcting it on boxes.

    python tools/benchmarks/half_cell.py CONFIG CHECKPOINT --images FOLDER --truth BOXES

Strided convolutions can shift a map by half a cell, see ``dap.cam.merge_scales``. The shift of a
classifier's maps is estimated per scale without true boxes, from images and their mirrored and
upside-down versions. Then boxes of the paper's rule are compared with true boxes, without a
correction, and with the cells moved down by the estimate and by other amounts, in the merge of the
scales and in the boxes. FOLDER has class folders, BOXES has a format that tools/evaluate_boxes.py
reads. Differences are given as the 95 % interval of a paired bootstrap over images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from dap import cam
from dap._malloc import tune_malloc
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.localization import LocalizationQuality
from dap.evaluation.name_matching import match_categories
from dap.images.categories import coco_categories
from dap.images.image_files import read_image
from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes.classifier import CamClassifier, evaluating
from dap.pseudo_boxes.from_config import build_class_folders, build_classifier, known_classes

FIGURES = ("AR, IoU .5:.95", "GT-known", "recall, IoU .5")
UPSIDE_DOWN = 5  # every 5th image is also used upside down
MOVES = (-0.5, -0.25, 0.125, 0.25, 0.5)  # cells down
RESAMPLES = 1000


class Case(NamedTuple):
    """One class of an image: its true boxes, and maps per scale, also upside down if computed."""

    size_hw: tuple[int, int]
    label: int
    truth: np.ndarray
    scales: list[cam.ScaleMaps]
    turned: list[cam.ScaleMaps]


def compute_cases(args: argparse.Namespace) -> Iterator[Case]:
    """Compute the maps of all images."""
    config = Config.fromfile(args.config)
    model, meta = build_classifier(config, args.checkpoint)
    classifier = CamClassifier(model)
    classifier.speed_up()
    truth, count = read_ground_truth(args.truth), classifier.num_classes
    folders = build_class_folders(args.images, count, known_classes(config, meta), args.classes)
    categories = coco_categories(LabelledImages(folders), count)
    label_of = match_categories(categories, truth.categories or [])
    for index, name in enumerate(truth.names):
        boxes, category, ignored = truth.objects_of(index)
        labels = np.where(ignored, -1, label_of[category])
        image = read_image(str(Path(args.images) / name))
        size_hw = (image.shape[1], image.shape[2])
        for label in sorted(set(labels[labels >= 0].tolist())):
            with evaluating(model), torch.inference_mode():
                scales = scale_maps(classifier, image, label)
                turned = [] if index % UPSIDE_DOWN else scale_maps(classifier, image.flip(1), label)
            yield Case(size_hw, label, boxes[labels == label], scales, turned)


def scale_maps(classifier: CamClassifier, image: torch.Tensor, label: int) -> list[cam.ScaleMaps]:
    """Compute the maps of an image and its mirror image, largest scale first, without padding."""
    view_maps = partial(cam.linear_maps, classifier.features_with(None), classifier.weight)
    labels, scales = [torch.tensor([label])], []
    for side, flips in cam.flips_by_side(cam.DEFAULT_VIEWS):
        batch = cam.batch_maps([image], side, flips, view_maps, labels, classifier.normalize)
        maps, _, stride = batch
        size_hw = cam.resized_size((image.shape[1], image.shape[2]), side)
        rows, columns = (-int(-n // step) for n, step in zip(size_hw, stride, strict=True))
        scales.append(cam.ScaleMaps(maps[..., :rows, :columns], stride, size_hw))
    return scales


def estimated_shift(cases: Sequence[Case], scale: int, axis: int) -> tuple[float, float]:
    """Estimate by how many cells maps are shifted up (axis 0) or left (axis 1).

    The distance between the map of an image and that of its reflection, reflected back, is twice
    the shift. It is estimated by the least-squares solution of Lucas and Kanade over all images,
    which overestimates small shifts by a fifth (.12 for .10).

    Returns:
        The shift in cells and its standard error over images.
    """
    sums = []
    for case in cases:
        maps, stride, size_hw = case.scales[scale]
        if size_hw[axis] % stride[axis] or not (axis or case.turned):
            continue  # cells and reflected cells coincide only if the image ends with a cell
        pair = [maps[0, 0], maps[1, 0]]
        if axis == 0:
            pair = [maps[:, 0].mean(0), case.turned[scale].maps[:, 0].mean(0).flip(0)]
        first, second = (((m - m.mean()) / m.std()).numpy() for m in pair)
        inner = range(1, first.shape[axis] - 1)
        slope = np.gradient((first + second) / 2, axis=axis).take(inner, axis)
        change = (first - second).take(inner, axis)
        sums.append(((slope * change).sum() / 2, (slope**2).sum()))
    changes, slopes = np.array(sums).reshape(-1, 2).T
    shift = changes.sum() / slopes.sum()
    error = np.sqrt(((changes - shift * slopes) ** 2).sum()) / slopes.sum()
    return float(shift), float(error)


def boxes_of(case: Case, moves: Sequence[float]) -> np.ndarray:
    """Compute the boxes of a case with the cells of each scale moved down, then clip them."""
    finest = case.scales[0]
    shape, total = finest.maps.shape[2:], np.zeros(finest.maps.shape[2:])
    for (maps, stride, size_hw), move in zip(case.scales, moves, strict=True):
        merged = maps[:, 0].mean(0).numpy()
        for axis, (start, end) in enumerate([(moves[0], move), (0.0, 0.0)]):
            centre = (np.arange(shape[axis]) + 0.5 + start) * finest.stride[axis]
            cell = centre / finest.size_hw[axis] * size_hw[axis] / stride[axis] - 0.5 - end
            cell = np.clip(cell, 0, len(merged) - 1)
            weights = np.maximum(1 - abs(cell[:, None] - np.arange(len(merged))), 0)
            merged = (weights @ merged).T  # interpolates rows, then columns
        total += merged / len(case.scales)
    lengths = zip(finest.stride, case.size_hw, finest.size_hw, strict=True)
    step_y, step_x = (step * side / resized for step, side, resized in lengths)
    edge = max(shape)  # a border of the lowest value, so that moved boxes are not clipped
    padded = np.pad(total, edge, constant_values=total.min())
    boxes = cam.box_candidates(padded, cell_size=(step_y, step_x)).boxes
    boxes -= np.array([edge * step_x, (edge - moves[0]) * step_y] * 2)
    boxes = np.clip(boxes, 0, np.array(case.size_hw[::-1] * 2)).round(2)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return boxes[cam.nms_larger_first(boxes)[0]]


def counts_of(cases: Sequence[Case], moves: Sequence[float]) -> np.ndarray:
    """Count AR times objects, correct largest boxes, and recalled objects per case."""
    rows = []
    for case in cases:
        quality, boxes = LocalizationQuality(), boxes_of(case, moves)
        quality.add(boxes, np.zeros(len(boxes)), case.truth, np.zeros(len(case.truth)))
        shares, n = quality.summary(), len(case.truth)
        rows.append((shares["average_recall"] * n, shares["corloc"], shares["recall"] * n))
    return np.array(rows)


def figures(cases: Sequence[Case], counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute :data:`FIGURES` in percent, shape (B, 3), with weights of the cases (B, N)."""
    labels = np.array([case.label for case in cases])
    objects = np.array([len(case.truth) for case in cases])
    of_class = (labels[:, None] == np.unique(labels)).astype(float)
    with np.errstate(invalid="ignore"):  # for classes without an image in a resample
        recalls = weights * counts[:, 0] @ of_class / (weights * objects @ of_class)
    correct, recalled = (weights @ counts[:, 1:]).T
    shares = (
        np.nanmean(recalls, axis=1),
        correct / weights.sum(axis=1),
        recalled / (weights @ objects),
    )
    return 100 * np.stack(shares, axis=1)


def report(cases: Sequence[Case]) -> None:
    """Print the estimates, and a table of the figures and their differences to no correction."""
    estimate, count = [], len(cases)
    for scale, (_, _, size_hw) in enumerate(cases[0].scales):
        (down, error), sideways = (estimated_shift(cases, scale, axis) for axis in (0, 1))
        estimate.append(down)
        print(f"short side {min(size_hw)}: maps lie {down:.3f} ± {error:.3f} cells too far up")
        print("    and, before mirror images are averaged, {:.3f} ± {:.3f} left".format(*sideways))
    variants = {"as they are": [0.0] * len(estimate), "down by the estimate": estimate}
    variants |= {f"down by {move:+}": [move] * len(estimate) for move in MOVES}
    draws = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), draws])
    print("\n| cells | " + " | ".join(FIGURES) + " |" + "\n|" + "---|" * (1 + len(FIGURES)))
    base = figures(cases, counts_of(cases, variants["as they are"]), weights)
    for name, moves in variants.items():
        values = figures(cases, counts_of(cases, moves), weights)
        low, high = np.percentile((values - base)[1:], [2.5, 97.5], axis=0)
        columns = zip(values[0], values[0] - base[0], low, high, strict=True)
        cells = ["{:.1f}: {:+.2f} ({:+.2f} … {:+.2f})".format(*column) for column in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Compute and evaluate the maps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="mmpretrain config of the classifier")
    parser.add_argument("checkpoint", help="weights of the classifier")
    parser.add_argument("--images", required=True, help="folder of class folders")
    parser.add_argument("--truth", required=True, help="true boxes of the images")
    parser.add_argument("--classes", help="class folders in label order, one per line")
    args = parser.parse_args()
    tune_malloc()
    init_default_scope("mmpretrain")
    report(list(compute_cases(args)))


if __name__ == "__main__":
    main()
