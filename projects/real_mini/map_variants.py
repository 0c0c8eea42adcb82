"""Would another map, or another choice of its boxes, find the objects of photographs better?

    python projects/real_mini/map_variants.py CONFIG CHECKPOINT \
        --images data/imagenet/train --truth projects/real_mini/sample_boxes.json --rule paper

The paper's map (DAP, eq. 1) against: a percentile of its values in place of the minimum (Kim et
al., Normalization Matters in Weakly Supervised Object Localization, ICCV 2021); the negative
weights of the linear layer clamped to zero; the last stage at stride 16 by dilation, weights
unchanged; lower thresholds; the largest box alone; and two boxes that need no map. TRUTH names
its images relative to the folder of the images. Each image counts by itself in the averages, and
differences to the paper's map have the 95 % interval of a paired bootstrap over images. The best
thresholds of MaxBoxAcc and MaxBoxAccV2 are chosen anew in each resample; the other figures are of
boxes at fixed thresholds, which mean something else on each variant's map.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from dap import cam
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.localization import LOCALIZATION_IOUS, LocalizationQuality, overlaps
from dap.evaluation.max_box_accuracy import TOP, MaxBoxAccuracy
from dap.evaluation.name_matching import match_categories
from dap.files import whole_file
from dap.images.categories import coco_categories
from dap.images.image_files import read_image
from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes.classifier import CamClassifier, evaluating
from dap.pseudo_boxes.from_config import build_class_folders, build_classifier, known_classes

PERCENTILES = (10, 20, 30, 45, 60)
FIGURES = ("GT-known", "MaxBoxAcc", "V2", "V2 .3", "V2 .5", "V2 .7", "precision", "recall", "AR")
COMPARED = ("GT-known", "MaxBoxAcc", "V2", "precision", "recall", "AR")
LEVELS = [(level + 0.5) / TOP for level in range(TOP)]  # every cut of a map in whole numbers


class Variant(NamedTuple):
    """How boxes are made: ``keep`` is 'all', 'threshold' or 'image', whose largest box stays."""

    name: str
    stride: int = 32
    clamped: bool = False
    percentile: float = 0
    keep: str = "all"
    lower: float = 0  # taken off each of the paper's thresholds
    fixed_side: float | None = None  # no map, but a centred box, in shares of width and height


class Case(NamedTuple):
    """An image and a class of which it has objects; by stride the plain and the clamped maps."""

    size_hw: tuple[int, int]
    truth: np.ndarray
    scales: dict[int, list[cam.ScaleMaps]]


def compute_cases(args: argparse.Namespace, strides: Sequence[int]) -> tuple[list[Case], list[str]]:
    """Compute the maps of all images; describe each stride's cost and its logits."""
    truth = read_ground_truth(args.truth)
    cases: dict[tuple[int, int], Case] = {}
    notes, logits = [], {}
    for stride in strides:
        config = Config.fromfile(args.config)
        if stride != strides[0]:
            config.model.backbone.output_stride = stride
        model, meta = build_classifier(config, args.checkpoint)
        classifier = CamClassifier(model)
        classifier.speed_up()
        count = classifier.num_classes
        folders = build_class_folders(args.images, count, known_classes(config, meta), None)
        categories = coco_categories(LabelledImages(folders), count)
        label_of = match_categories(categories, truth.categories or [])
        seconds, right, own_logits = 0.0, 0, []
        for index, name in enumerate(truth.names):
            boxes, own_categories, ignored = truth.objects_of(index)
            labels = np.where(ignored, -1, label_of[own_categories])
            image = read_image(str(Path(args.images) / name))
            size_hw = (image.shape[1], image.shape[2])
            for label in sorted(set(labels[labels >= 0].tolist())):
                started = time.process_time()
                with torch.inference_mode(), evaluating(model):
                    scales, summed = scale_maps(classifier, image, label)
                seconds += time.process_time() - started
                case = Case(size_hw, boxes[labels == label], {})
                cases.setdefault((index, label), case).scales[stride] = scales
                right += int(summed.argmax() == label)
                own_logits.append(summed)
        logits[stride] = torch.stack(own_logits)
        alike = torch.cosine_similarity(logits[stride], logits[strides[0]]).mean()
        notes.append(
            f"Stride {stride}: {seconds / len(cases):.2f} CPU seconds an image, top-1 "
            f"{right} of {len(cases)}, cosine of its logits and those of stride {strides[0]} "
            f"{alike:.3f}, mean of the largest logit {logits[stride].amax(1).mean():.2f}"
        )
    return list(cases.values()), notes


def scale_maps(
    classifier: CamClassifier, image: Tensor, label: int
) -> tuple[list[cam.ScaleMaps], Tensor]:
    """Maps with the class's weights and with the positive ones alone; the views' mean logits."""
    weight = torch.cat([classifier.weight, classifier.weight.clamp(min=0)])
    labels = [torch.tensor([label, label + classifier.num_classes])]
    view_maps = partial(cam.linear_maps, classifier.features_with(None), weight)
    scales, pooled = [], []
    for side, flips in cam.flips_by_side(cam.DEFAULT_VIEWS):
        found = cam.batch_maps([image], side, flips, view_maps, labels, classifier.normalize)
        size_hw = cam.resized_size((image.shape[1], image.shape[2]), side)
        scales.append(cam.ScaleMaps(found.maps, found.stride, size_hw))
        pooled.append(found.pooled[0])
    logits = torch.stack(pooled).sum(0) / len(cam.DEFAULT_VIEWS) @ classifier.weight.T
    return scales, logits + classifier.bias


def clipped(maps: Tensor, percentile: float) -> Tensor:
    """Raise what lies below a percentile of its own map to it, shape (…, H, W)."""
    low = torch.quantile(maps.flatten(-2), percentile / 100, dim=-1)
    return maps.maximum(low[..., None, None])


def merged_map(case: Case, variant: Variant, rule: cam.Rule) -> cam.MergedCam:
    """The map of a variant, clipped where its rule normalises: merged, or scale by scale."""
    row = int(variant.clamped)
    scales = [own._replace(maps=own.maps[:, [row]]) for own in case.scales[variant.stride]]
    if rule == "paper":
        merged = cam.merge_scales(scales, case.size_hw, rule)
        return merged._replace(maps=clipped(merged.maps, variant.percentile))
    means = [own.maps.mean(dim=0, keepdim=True) for own in scales]
    scales = [
        own._replace(maps=clipped(mean, variant.percentile))
        for own, mean in zip(scales, means, strict=True)
    ]
    return cam.merge_scales(scales, case.size_hw, rule)


def boxes_of(
    merged: cam.MergedCam, size_hw: tuple[int, int], variant: Variant, rule: cam.Rule
) -> np.ndarray:
    """The boxes of a map, largest first, with as many left out as the variant says."""
    taus = [tau - variant.lower for tau in cam.THRESHOLDS]
    values = merged.maps[0].numpy()
    boxes, index, _ = cam.box_candidates(values, taus, rule, merged.cell_size, size_hw)
    if variant.keep == "threshold":
        order, _ = cam.nms_larger_first(boxes, None, rule)
        _, first = np.unique(index[order], return_index=True)
        boxes = boxes[order[np.sort(first)]]
    boxes = boxes[cam.nms_larger_first(boxes, cam.NMS_IOU, rule)[0]]
    return boxes[:1] if variant.keep == "image" else boxes


def columns_of(cases: Sequence[Case], variant: Variant, rule: cam.Rule) -> dict[str, np.ndarray]:
    """What a variant gets right, in rows of one case each."""
    quality, accuracy = LocalizationQuality(), MaxBoxAccuracy()
    cuts, sides = np.zeros((len(cases), 1 + len(LOCALIZATION_IOUS), TOP)), np.zeros((len(cases), 2))
    for number, case in enumerate(cases):
        if variant.fixed_side is not None:
            half = np.array(case.size_hw[::-1]) * variant.fixed_side / 2
            centre = np.array(case.size_hw[::-1]) / 2
            boxes = np.concatenate([centre - half, centre + half])[None]
            best = overlaps(boxes, case.truth).max()
            cuts[number] = (best >= np.array([0.5, *LOCALIZATION_IOUS]))[:, None]
        else:
            merged = merged_map(case, variant, rule)
            boxes = boxes_of(merged, case.size_hw, variant, rule)
            accuracy.add(merged.over_image(case.size_hw), case.truth, number)
        labels = [np.full(len(own), number) for own in (boxes, case.truth)]
        quality.add(boxes, labels[0], case.truth, labels[1])
        sides[number] = (boxes[:, 2:] - boxes[:, :2]).sum(axis=0)
    for number, own in (accuracy.summary(LEVELS)["per_class"] if accuracy.maps else {}).items():
        for level, at in enumerate(own["at_fixed_thresholds"].values()):
            cuts[number, :, level] = [at["max_contour"], *at["all_contours_by_iou"].values()]
    per_case = quality.summary()["per_class"].values()
    names = ("corloc", "average_recall", "boxes", "objects", "precision", "recall")
    columns = {name: np.array([own[name] or 0.0 for own in per_case]) for name in names}
    return columns | {"cuts": cuts.reshape(len(cases), -1), "sides": sides}


def figures(columns: dict[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Compute :data:`FIGURES` in percent where images count so often, (B, N): shape (9, B)."""
    images, boxes = weights.sum(axis=1), weights @ columns["boxes"]
    cuts = (weights @ columns["cuts"]).reshape(len(weights), -1, TOP).max(axis=2).T / images
    right = weights @ (columns["precision"] * columns["boxes"])
    found = weights @ (columns["recall"] * columns["objects"])
    shares = [weights @ columns["corloc"] / images, cuts[0], cuts[1:].mean(axis=0), *cuts[1:]]
    shares += [right / boxes, found / (weights @ columns["objects"])]
    return 100 * np.stack([*shares, weights @ columns["average_recall"] / images])


def tables(results: dict[str, dict[str, np.ndarray]], resamples: int = 2000) -> list[str]:
    """Figures of all variants, and differences to the first; ** where 0 is outside the interval."""
    base, compared = next(iter(results)), [FIGURES.index(name) for name in COMPARED]
    count = len(results[base]["boxes"])
    draws = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=resamples)
    weights = np.concatenate([np.ones((1, count)), draws])
    all_figures = {name: figures(columns, weights) for name, columns in results.items()}
    heads = ["variant", *FIGURES, "boxes an image", "width", "height"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    below = ["| difference | " + " | ".join(COMPARED) + " |", "|---" * (len(COMPARED) + 1) + "|"]
    for name, columns in results.items():
        total = columns["boxes"].sum()
        cells = [f"{value:.1f}" for value in all_figures[name][:, 0]]
        width, height = columns["sides"].sum(axis=0) / total
        cells += [f"{total / count:.2f}", f"{width:.0f}", f"{height:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        difference = (all_figures[name] - all_figures[base])[compared]
        lows, highs = np.percentile(difference[:, 1:], [2.5, 97.5], axis=1)
        cells = [
            f"{own:+.1f} ({low:+.1f} … {high:+.1f}){' **' if low > 0 or high < 0 else ''}"
            for own, low, high in zip(difference[:, 0], lows, highs, strict=True)
        ]
        below.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", *below[:2], *below[3:]]


def main() -> None:
    """Compute the maps once, judge all variants, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="mmpretrain config of a classifier with a timm backbone")
    parser.add_argument("checkpoint", help="its weights")
    parser.add_argument("--images", required=True, help="folder of class folders")
    parser.add_argument("--truth", required=True, help="their boxes, COCO")
    parser.add_argument("--rule", choices=("paper", "release"), default="paper")
    parser.add_argument("--out", help="Markdown file to write")
    args = parser.parse_args()
    init_default_scope("mmpretrain")
    cases, notes = compute_cases(args, (32, 16))
    title = f"Rule `{args.rule}`, {len(cases)} images. {'. '.join(notes)}."
    lines = [title, "", *judged(cases, args.rule)]
    print("\n".join(lines))
    if args.out:
        with whole_file(Path(args.out)) as file:
            file.write("\n".join(lines) + "\n")


def judged(cases: Sequence[Case], rule: cam.Rule) -> list[str]:
    """The tables of all variants, with the percentile that has the best MaxBoxAccV2 tried on."""
    first = [Variant("paper"), *(Variant(f"percentile {p}", percentile=p) for p in PERCENTILES)]
    results = {variant.name: columns_of(cases, variant, rule) for variant in first}
    one = np.ones((1, len(cases)))
    v2 = FIGURES.index("V2")
    best = max(first[1:], key=lambda own: figures(results[own.name], one)[v2, 0])
    p = best.percentile
    rest = [
        Variant("clamped", clamped=True),
        Variant(f"clamped, {best.name}", clamped=True, percentile=p),
        Variant("stride 16", stride=16),
        Variant("stride 16, clamped", stride=16, clamped=True),
        Variant(f"stride 16, {best.name}", stride=16, percentile=p),
        Variant("thresholds .1 lower", lower=0.1),
        Variant(f"thresholds .1 lower, {best.name}", percentile=p, lower=0.1),
        Variant("thresholds .1 lower, clamped", clamped=True, lower=0.1),
        Variant("thresholds .1 lower, stride 16", stride=16, lower=0.1),
        Variant("thresholds .1 lower, stride 16, clamped", stride=16, clamped=True, lower=0.1),
        Variant("largest box of each τ", keep="threshold"),
        Variant("largest box of the image", keep="image"),
        Variant("whole image", fixed_side=1),
        Variant("centred box, half the area", fixed_side=0.71),
    ]
    results |= {variant.name: columns_of(cases, variant, rule) for variant in rest}
    return tables(results)


if __name__ == "__main__":
    main()
