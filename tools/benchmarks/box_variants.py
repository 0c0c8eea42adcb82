"""Compare many variants of maps and boxes with rule='extent', for one classifier.

    python tools/benchmarks/box_variants.py MAPS.npz CONFIG CHECKPOINT --images FOLDER --truth FILE
    python tools/benchmarks/box_variants.py MAPS.npz [--half 0]

The first command computes the maps of all variants and the class probability of crops at candidate
boxes, and saves them in MAPS.npz. Both print a table as tools/benchmarks/box_rules.py does, with
differences to the rule. The network must be an EfficientNet of timm, or --fine must be the module
that computes its features at half the stride.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from box_rules import Case, Maps, Variant, add_arguments, cases_of, labelled_images, report
from torch import Tensor

from dap import cam
from dap.cam.contrast import centred_directions, feature_contrast, spread_maps
from dap.cam.extents import components, otsu_threshold
from dap.cam.views import cells_of
from dap.pseudo_boxes.classifier import CamClassifier

STRIDE, GRABCUT_SIDE = 32, 160  # of the network; longer side of images for GrabCut, in pixels
SETS = ((0.5, 0.8, 1.2), (0.55, 0.85, 1.25), (0.5, 0.75, 1.0, 1.4), (0.5, 0.8, 1.05, 1.4))


def unit(maps: Tensor) -> Tensor:
    """Normalise maps (F, h, w) to [0, 1]."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def geometric(*maps: Tensor) -> Tensor:
    """Compute the geometric mean of maps in [0, 1] on the largest grid."""
    largest = max((each.shape[-2:] for each in maps), key=lambda hw: hw[0] * hw[1])
    product = torch.ones(())
    for each in maps:
        product = product * F.interpolate(each[:, None], largest, mode="bilinear")[:, 0]
    return product.clamp(min=0).double().pow(1 / len(maps)).float()


def self_correlation(features: Tensor, maps: Tensor) -> Tensor:
    """Grow maps along similar features, as SPA does (Pan et al., CVPR 2021).

    The value of a cell is its mean similarity (the maximum of first and second order) to the cells
    above 1.1 times Otsu's threshold, minus that to the cells below .35 times the threshold.
    """
    grown = []
    for view, values in zip(features, maps, strict=True):
        vectors = F.normalize(view.flatten(1) - view.flatten(1).mean(1, keepdim=True), dim=0)
        first = (vectors.T @ vectors).clamp(min=0)
        second = first @ first
        similarity = torch.maximum(first, second / second.amax(1, keepdim=True))
        level, flat = otsu_threshold(values.numpy()), values.flatten()
        inner, outer = flat >= min(1.1 * level, 1), flat < 0.35 * level
        background = similarity[outer].mean(0) if outer.any() else torch.zeros(())
        grown.append((similarity[inner].mean(0) - background).clamp(min=0).view_as(values))
    return torch.stack(grown)


def bagged(features: Tensor, gradient: Tensor) -> Tensor:
    """Compute BagCAMs (Zhu et al., ECCV 2022): mean of rectified maps by the gradients per cell."""
    scores = torch.einsum("fdm,fdn->fmn", gradient.flatten(2), features.flatten(2))
    return scores.clamp(min=0).mean(1).unflatten(1, features.shape[-2:])


def maps_of_view(
    features: Tensor, fine: Tensor, weight: Tensor, gradient: Tensor
) -> dict[str, Tensor]:
    """Compute the maps of all variants at one scale, each of shape (F, h, w).

    Args:
        features: Last feature map, shape (F, D, h, w).
        fine: Features at half the stride, shape (F, E, 2h, 2w).
        weight: Row of the class in the linear layer, shape (D,).
        gradient: Gradient of the logit by ``fine``.
    """
    activation = unit(torch.einsum("fdhw,d->fhw", features, weight))
    inside = torch.ones_like(activation, dtype=torch.bool)
    contrast = unit(feature_contrast(features, inside))
    directions = centred_directions(features, inside)
    spread = unit(spread_maps(activation, directions, inside))
    component = activation
    for _ in range(15):  # converges to the first principal component
        component = unit(spread_maps(component, directions, inside))
    fine_contrast = unit(feature_contrast(fine, torch.ones_like(fine[:, 0], dtype=torch.bool)))
    joined = (activation * contrast).sqrt()
    kept = geometric(activation, contrast, spread)
    bag = unit(bagged(fine, gradient))
    return {
        "extent": kept,
        "activation alone": activation,
        "contrast alone": contrast,
        "activation, contrast": joined,
        "activation, spread": geometric(activation, spread),
        "activation, component": geometric(activation, component),
        "activation, contrast, component": geometric(activation, contrast, component),
        "extent and contrast of stride 16": geometric(kept, fine_contrast),
        "activation, contrast of stride 16": geometric(activation, fine_contrast),
        "self-correlation": unit(self_correlation(features, joined)),
        "extent and self-correlation": geometric(kept, unit(self_correlation(features, joined))),
        "BagCAMs, stride 16": bag,
        "extent and BagCAMs": geometric(kept, bag),
    }


def merged(
    scales: Sequence[dict[str, Tensor]],
    sizes_hw: Sequence[tuple[int, int]],
    image_hw: tuple[int, int],
) -> Maps:
    """Merge the scales of each variant, the largest first; and other ways to merge the rule's."""
    rows = [len(scale["extent"][0]) for scale in scales]

    def merge(each: Sequence[Tensor], first: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
        parts = []
        for i, maps in enumerate(each, first):
            stride = STRIDE if len(maps[0]) == rows[i] else STRIDE / 2
            parts.append(cam.ScaleMaps(maps[:, None], (stride, stride), sizes_hw[i]))
        merged_cam = cam.merge_scales(parts, image_hw, "extent")
        return merged_cam.maps[0].numpy(), merged_cam.cell_size

    result = {name: merge([scale[name] for scale in scales]) for name in scales[0]}
    kept = [scale["extent"] for scale in scales]
    result["extent, smaller of both mirrors"] = merge([e.amin(0, keepdim=True) for e in kept])
    result["extent, largest scale alone"] = merge(kept[:1])
    result["extent, smallest scale alone"] = merge(kept[-1:], len(kept) - 1)
    result["extent, product of scales"] = merge([geometric(*(e.mean(0)[None] for e in kept))])
    return result


def grabcut_box(image: np.ndarray, values: np.ndarray, cell: tuple[float, float]) -> np.ndarray:
    """Compute the box of GrabCut's largest component, initialised at multiples of Otsu's threshold.

    Args:
        image: BGR, uint8, shape (H, W, 3).
        values: Map of the rule.
        cell: Pixels per cell.

    Returns:
        xyxy in pixels, shape (1, 4); (0, 4) if the foreground is empty.
    """
    over = cam.map_over_image(values, cell, (image.shape[0], image.shape[1]))
    scale = GRABCUT_SIDE / max(over.shape)
    image, over = (cv2.resize(x, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                   for x in (image, over))  # fmt: skip
    level, mask = otsu_threshold(over), np.full(over.shape, cv2.GC_BGD, np.uint8)
    for multiple, kind in ((0.4, cv2.GC_PR_BGD), (0.8, cv2.GC_PR_FGD), (1.4, cv2.GC_FGD)):
        mask[over > multiple * level] = kind
    if not (mask == cv2.GC_FGD).any() or not (mask == cv2.GC_BGD).any():
        return np.zeros((0, 4))
    cv2.setRNGSeed(0)
    unused, models = (0, 0, 1, 1), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.grabCut(image, mask, unused, *models, 2, cv2.GC_INIT_WITH_MASK)
    boxes, cells, *_ = components(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)) * 1.0, np.array([0.5]))
    return boxes[[cells.argmax()]] / scale if len(boxes) else np.zeros((0, 4))


def crop_probabilities(
    classifier: CamClassifier, image: Tensor, label: int, boxes: np.ndarray, side: int
) -> np.ndarray:
    """Compute the class probability of each crop, resized to ``side`` x ``side``, shape (K,)."""
    probabilities = []
    for left, top, right, bottom in boxes.round().astype(int).tolist():
        crop = image[None, :, top : max(bottom, top + 4), left : max(right, left + 4)].float()
        crop = F.interpolate(crop, (side, side), mode="bilinear", antialias=True)
        features = classifier.features(classifier.normalize(crop))
        logits = classifier.logits(features.mean(dim=(2, 3)), 1)
        probabilities.append(float(logits.softmax(dim=1)[0, label]))
    return np.array(probabilities)


def rule_boxes(
    case: Case, name: str = "extent", multiples: Sequence[float] | None = None
) -> np.ndarray:
    """Compute boxes of a map by the rule."""
    values, cell = case.maps[name]
    return cam.boxes_from_cam(values, multiples, cam.NMS_IOU, "extent", cell, case.size_hw)[0]


def with_grabcut(case: Case) -> np.ndarray:
    """The rule's boxes with GrabCut's box instead of those at .8 times Otsu's threshold."""
    boxes = np.concatenate([rule_boxes(case, multiples=(0.55, 1.0, 1.25)), case.maps["GrabCut"][0]])
    return boxes[cam.nms_larger_first(boxes)[0]]


def smallest_that_keeps_first(case: Case) -> np.ndarray:
    """The rule's boxes, starting with the smallest whose crop has .8 of the largest probability."""
    rows = case.maps["crops"][0]  # by decreasing area
    first = int(np.flatnonzero(rows[:, 4] >= 0.8 * rows[:, 4].max())[-1])
    return np.concatenate([rows[[first], :4], np.delete(rows[:, :4], first, 0)])


def without_losing(case: Case) -> np.ndarray:
    """The rule's boxes whose crop has at least .3 of the largest probability."""
    rows = case.maps["crops"][0]
    return rows[rows[:, 4] >= 0.3 * rows[:, 4].max(), :4]


def variants(cases: Sequence[Case]) -> dict[str, Variant]:
    """Make the variants, the rows of the table."""
    rows: dict[str, Variant] = {}
    for name in cases[0].maps:
        if name not in ("crops", "GrabCut"):
            rows[name] = partial(rule_boxes, name=name)
    for multiples in SETS:
        label = " ".join(f"{each:g}" for each in multiples).replace("0.", ".")
        rows[f"extent, Otsu x {label}"] = partial(rule_boxes, multiples=multiples)
    rows["activation, contrast, Otsu x .45 .7 1.1"] = partial(
        rule_boxes, name="activation, contrast", multiples=(0.45, 0.7, 1.1)
    )
    rows["GrabCut in place of .8"] = with_grabcut
    rows["first the smallest box that keeps the class"] = smallest_that_keeps_first
    rows["without boxes that lose the class"] = without_losing
    return rows


def compute(args: argparse.Namespace) -> Iterator[Case]:
    """Compute the maps of all variants for all images."""
    taken: dict[str, Tensor] = {}

    def keep(_: Any, __: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on, for BagCAMs
        taken["fine"] = output.detach().requires_grad_()
        return taken["fine"]

    hook = None
    for classifier, image, label, truth in labelled_images(args):
        if hook is None:
            hook = classifier.model.backbone.get_submodule(args.fine).register_forward_hook(keep)
        with torch.no_grad():
            yield case_of(classifier, taken, image, label, truth, args)


def case_of(
    classifier: CamClassifier,
    taken: dict[str, Tensor],
    image: Tensor,
    label: int,
    truth: np.ndarray,
    args: argparse.Namespace,
) -> Case:
    """Compute maps, crop probabilities and GrabCut's box of one class of an image."""
    size_hw = (image.shape[1], image.shape[2])
    sides = sorted(args.short_sides, reverse=True)
    scales = [maps_of_side(classifier, taken, image, side, label) for side in sides]
    maps = merged(scales, [cam.resized_size(size_hw, side) for side in sides], size_hw)
    case = Case(size_hw, truth, maps)
    boxes = rule_boxes(case)
    probabilities = crop_probabilities(classifier, image, label, boxes, args.crop_side)
    maps["crops"] = np.column_stack([boxes, probabilities]), (1.0, 1.0)
    bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    maps["GrabCut"] = grabcut_box(bgr, *maps["extent"]), (1.0, 1.0)
    return case


def maps_of_side(
    classifier: CamClassifier, taken: dict[str, Tensor], image: Tensor, side: int, label: int
) -> dict[str, Tensor]:
    """Compute the maps of all variants at one scale, mirrored back and without padding."""
    size_hw = cam.resized_size((image.shape[1], image.shape[2]), side)
    resized = F.interpolate(image[None].float(), size_hw, mode="bilinear", antialias=True)
    view = classifier.normalize(resized)
    view = F.pad(view, (0, -size_hw[1] % cam.PAD_MULTIPLE, 0, -size_hw[0] % cam.PAD_MULTIPLE))
    features = classifier.features(torch.cat([view, view.flip(-1)]))
    fine = taken["fine"]
    logit = (features.mean(dim=(2, 3)) @ classifier.weight[label]).sum()
    (gradient,) = torch.autograd.grad(logit, fine)
    torch.set_grad_enabled(False)
    inner = []
    for tensor, stride in ((features, STRIDE), (fine, STRIDE // 2), (gradient, STRIDE // 2)):
        rows, columns = cells_of(size_hw, (stride, stride))
        both = torch.stack([tensor[0], tensor[1].flip(-1)]).detach()
        inner.append(both[..., :rows, :columns])
    return maps_of_view(inner[0], inner[1], classifier.weight[label], inner[2])


def main() -> None:
    """Compute the maps if the file is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--fine", default="timm_model.blocks.4", help="module with half the stride")
    parser.add_argument("--crop-side", type=int, default=224, help="side that crops are resized to")
    args = parser.parse_args()
    cases = cases_of(args, parser, compute)
    report(cases, variants(cases), "extent")


if __name__ == "__main__":
    main()
