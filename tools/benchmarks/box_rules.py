"""Compare the boxes of different rules on the same maps.

    python tools/benchmarks/box_rules.py MAPS.npz CONFIG CHECKPOINT --images FOLDER --truth FILE
    python tools/benchmarks/box_rules.py MAPS.npz

The first command computes the maps of all images of FOLDER (class folders) that have true boxes in
FILE (in a format that tools/evaluate_boxes.py reads), for their true classes, and saves them with
the boxes in MAPS.npz. The second command uses this file. Both print a table in percent. GT-known:
images whose largest box has an IoU of at least .5 with an object; recall: objects with such a box;
AR: recall averaged over IoU .5:.95; fitting: boxes with an IoU of at least .5 with an object.
Differences to the first row, or to --base, are given as the 95 % interval of a paired bootstrap
over images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from dap import cam
from dap._malloc import tune_malloc
from dap.cam.boxes import nms_larger_first
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.name_matching import match_categories
from dap.images.categories import coco_categories
from dap.images.image_files import read_image
from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes.classifier import CamClassifier
from dap.pseudo_boxes.from_config import build_class_folders, build_classifier, known_classes

FIGURES = ("GT-known", "recall", "AR", "fitting")
IOUS = np.arange(0.5, 1, 0.05)
RESAMPLES = 1000


Maps = dict[str, tuple[np.ndarray, tuple[float, float]]]
"""Map, and size of a cell in pixels, (y, x), by name."""


class Case(NamedTuple):
    """One class of an image: size of the image, true boxes (xyxy), and maps by name."""

    size_hw: tuple[int, int]
    truth: np.ndarray
    maps: Maps


Variant = Callable[[Case], np.ndarray]
"""A function from a case to boxes (xyxy)."""


def compute_cases(args: argparse.Namespace) -> Iterator[Case]:
    """Compute the maps of all images."""
    views = cam.make_views(args.short_sides)
    for number, (classifier, image, label, truth) in enumerate(labelled_images(args)):
        if number == 0:
            classifier.speed_up()
        with torch.inference_mode():
            maps = maps_of(classifier, image, label, views)
        yield Case((image.shape[1], image.shape[2]), truth, maps)


def labelled_images(
    args: argparse.Namespace,
) -> Iterator[tuple[CamClassifier, Tensor, int, np.ndarray]]:
    """Yield the classifier, an image, one of its classes, and the true boxes of that class."""
    tune_malloc()
    init_default_scope("mmpretrain")
    config = Config.fromfile(args.config)
    model, meta = build_classifier(config, args.checkpoint)
    classifier = CamClassifier(model.eval())
    truth, count = read_ground_truth(args.truth), classifier.num_classes
    folders = build_class_folders(args.images, count, known_classes(config, meta), args.classes)
    categories = coco_categories(LabelledImages(folders), count)
    label_of = match_categories(categories, truth.categories or [])
    for index, name in enumerate(truth.names[:: args.every]):
        boxes, category, ignored = truth.objects_of(index * args.every)
        labels = np.where(ignored, -1, label_of[category])
        image = read_image(str(Path(args.images) / name))
        for label in sorted(set(labels[labels >= 0].tolist())):
            yield classifier, image, label, boxes[labels == label]


def maps_of(
    classifier: CamClassifier, image: Tensor, label: int, views: Sequence[cam.View]
) -> Maps:
    """Compute the merged map of each rule, with one forward per view."""
    size_hw = (image.shape[1], image.shape[2])
    scales: dict[cam.Rule, list[cam.ScaleMaps]] = {"paper": [], "extent": []}
    forward = classifier.view_maps(None)
    for side, flips in cam.flips_by_side(views):
        computed: list[cam.MappedViews] = []

        def view_maps(
            batch: Tensor,
            labels: Sequence[Tensor],
            views: int,
            computed: list[cam.MappedViews] = computed,
        ) -> cam.MappedViews:
            if not computed:
                computed.append(forward(batch, labels, views))
            return computed[0]

        for rule, rule_scales in scales.items():
            maps, _, stride = cam.batch_maps(
                [image], side, flips, view_maps, [torch.tensor([label])], classifier.normalize,
                classifier.pad_multiple, rule,
            )  # fmt: skip
            rule_scales.append(cam.ScaleMaps(maps, stride, cam.resized_size(size_hw, side)))
    merged = {
        rule: cam.merge_scales(scales["extent" if rule == "extent" else "paper"], size_hw, rule)
        for rule in cam.RULES
    }
    return {rule: (map_.maps[0].numpy(), map_.cell_size) for rule, map_ in merged.items()}


def save(path: Path, cases: Sequence[Case]) -> None:
    """Write cases as one file of arrays."""
    arrays = {
        "sizes_hw": np.array([case.size_hw for case in cases]),
        "names": np.array([*cases[0].maps]),
    }
    for i, case in enumerate(cases):
        arrays[f"truth{i}"] = case.truth
        for rule, (values, cell) in case.maps.items():
            arrays[f"{rule}{i}"], arrays[f"{rule}_cell{i}"] = values, np.array(cell)
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> list[Case]:
    """Read the cases written by :func:`save`."""
    with np.load(path) as arrays:
        return [
            Case(
                (int(height), int(width)),
                arrays[f"truth{i}"],
                {
                    name: (arrays[f"{name}{i}"], tuple(arrays[f"{name}_cell{i}"]))
                    for name in arrays["names"].tolist()
                },
            )
            for i, (height, width) in enumerate(arrays["sizes_hw"])
        ]


def by_rule(
    rule: cam.Rule, thresholds: Sequence[float] | None = None, map_name: str | None = None,
    power: float = 1, nms_iou: float = cam.NMS_IOU,
) -> Variant:  # fmt: skip
    """Make a variant: a rule of ``dap.cam`` on its own map or on that of another rule."""

    def variant(case: Case) -> np.ndarray:
        values, cell = case.maps[map_name or rule]
        if power != 1:
            values = (values - values.min()) ** power
        return cam.boxes_from_cam(values, thresholds, nms_iou, rule, cell, case.size_hw)[0]

    return variant


def moments_first(threshold: float, multiples: Sequence[float]) -> Variant:
    """Make a variant: boxes by moments at one threshold and extents at some, merged by NMS."""
    variants = by_rule("paper", (threshold,), "extent"), by_rule("extent", multiples)

    def variant(case: Case) -> np.ndarray:
        boxes = np.concatenate([one(case) for one in variants])
        return boxes[nms_larger_first(boxes)[0]]

    return variant


VARIANTS: dict[str, Variant] = {
    "paper, τ .2 .3 .4 .5": by_rule("paper"),
    "release, τ .2 .3 .4 .5": by_rule("release"),
    "paper, τ .05 .1 .2 .3": by_rule("paper", (0.05, 0.1, 0.2, 0.3)),
    "paper on the square root of the map": by_rule("paper", power=0.5),
    "extents, Otsu x .45 .7 1.1": by_rule("extent", (0.45, 0.7, 1.1), "paper"),
    "extents, Otsu x .55 .8 1 1.25": by_rule("extent", None, "paper"),
    "paper on the joined map": by_rule("paper", None, "extent"),
    "extent (default)": by_rule("extent"),
    "extent, Otsu x .5 .8 1.2": by_rule("extent", (0.5, 0.8, 1.2)),
    "extent, Otsu x .55 .85 1.25": by_rule("extent", (0.55, 0.85, 1.25)),
    "extent, Otsu x .5 .8 1.05 1.4": by_rule("extent", (0.5, 0.8, 1.05, 1.4)),
    "extent, NMS .7": by_rule("extent", nms_iou=0.7),
    "moments, τ .2, and extents, Otsu x .8 1 1.25": moments_first(0.2, (0.8, 1, 1.25)),
}


def counts_of(boxes: np.ndarray, truth: np.ndarray) -> list[float]:
    """Count boxes, objects, correct largest boxes, recalled objects, AR and fitting boxes."""
    if not len(boxes):
        return [0, len(truth), 0, 0, 0, 0]
    start = np.maximum(boxes[:, None, :2], truth[:, :2])
    end = np.minimum(boxes[:, None, 2:], truth[:, 2:])
    overlap = (end - start).clip(0).prod(axis=2)
    areas, true_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, truth))
    ious = overlap / (areas[:, None] + true_areas - overlap)
    best = ious.max(axis=0)
    recall_sum = (best[:, None] >= IOUS - 1e-9).mean(axis=1).sum()
    fitting = (ious.max(axis=1) >= 0.5).sum()
    return [len(boxes), len(truth), ious[0].max() >= 0.5, (best >= 0.5).sum(), recall_sum, fitting]


def figures(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute boxes per image and :data:`FIGURES`.

    Args:
        counts: Results of :func:`counts_of`, shape (N, 6).
        weights: Weights of the cases in B resamples, shape (B, N).

    Returns:
        Shape (B, 5).
    """
    boxes, objects, known, recalled, average, fitting = (weights @ counts).T
    cases = weights.sum(axis=1)
    shares = known / cases, recalled / objects, average / objects, fitting / boxes
    return np.stack([boxes / cases, *(100 * share for share in shares)], axis=1)


def seconds_per_map(variant: Variant, cases: Sequence[Case]) -> float:
    """CPU time per map on one core, the minimum of three rounds."""
    rounds = []
    for _ in range(3):
        begin = time.process_time()
        for case in cases:
            variant(case)
        rounds.append((time.process_time() - begin) / len(cases))
    return min(rounds)


def report(cases: Sequence[Case], variants: Mapping[str, Variant], base_name: str) -> None:
    """Print the table of all variants, with the differences to a base."""
    objects = sum(len(case.truth) for case in cases)
    print(f"{len(cases)} images with {objects} objects\n")
    draws = np.random.default_rng(0).multinomial(
        len(cases), [1 / len(cases)] * len(cases), size=RESAMPLES
    )
    weights = np.concatenate([np.ones((1, len(cases))), draws])
    print("| boxes | boxes per image | " + " | ".join(FIGURES) + " | µs per map |")
    print("|" + "---|" * (3 + len(FIGURES)))
    results = {
        name: figures(
            np.array([counts_of(variant(case), case.truth) for case in cases], float), weights
        )
        for name, variant in variants.items()
    }
    base = results[base_name]
    for name, values in results.items():
        low, high = np.percentile((values - base)[1:], [2.5, 97.5], axis=0)
        cells = [f"{values[0, 0]:.2f}"]
        for k in range(1, values.shape[1]):
            change = f" ({low[k]:+.1f} … {high[k]:+.1f})" if values is not base else ""
            cells.append(f"{values[0, k]:.1f}{change}")
        cells.append(f"{1e6 * seconds_per_map(variants[name], cases):.0f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Compute the maps if the file is missing, and compare the rules."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    names = [*VARIANTS]
    parser.add_argument("--base", choices=names, default=names[0], help="row to compare with")
    args = parser.parse_args()
    report(cases_of(args, parser, compute_cases), VARIANTS, args.base)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`cases_of` and :func:`labelled_images`."""
    parser.add_argument("maps", type=Path, help="file of maps, written if missing")
    parser.add_argument("config", nargs="?", help="mmpretrain config of the classifier")
    parser.add_argument("checkpoint", nargs="?", help="weights of the classifier")
    parser.add_argument("--images", help="folder of class folders")
    parser.add_argument("--truth", help="true boxes of the images")
    parser.add_argument("--classes", help="class folders in label order, one per line")
    parser.add_argument("--short-sides", type=int, nargs="+", default=(288, 576))
    parser.add_argument("--every", type=int, default=1, help="use only every N-th image")
    parser.add_argument("--half", type=int, choices=(0, 1), help="evaluate only every second image")


def cases_of(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    compute: Callable[[argparse.Namespace], Iterator[Case]],
) -> list[Case]:
    """Read the cases; compute them first if the file is missing."""
    cv2.setNumThreads(0)  # as in Step 2
    if not args.maps.exists():
        if not (args.config and args.checkpoint and args.images and args.truth):
            parser.error(f"{args.maps} is missing: pass CONFIG, CHECKPOINT, --images and --truth")
        save(args.maps, list(compute(args)))
    cases = load(args.maps)
    return cases if args.half is None else cases[args.half :: 2]


if __name__ == "__main__":
    main()
