"""Compare boxes of rule='extent' from more scales, from crops, and snapped to superpixels.

    python tools/benchmarks/box_scales.py MAPS.npz CONFIG CHECKPOINT --images FOLDER --truth FILE
    python tools/benchmarks/box_scales.py MAPS.npz [--half 0]

The first command computes the maps and saves them in MAPS.npz. Both print a table as
tools/benchmarks/box_rules.py does, with differences to the rule at the paper's two scales.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import torch
from box_rules import Case, add_arguments, cases_of, labelled_images, report
from box_variants import rule_boxes
from torch import Tensor

from dap import cam
from dap.pseudo_boxes.classifier import CamClassifier

DEFAULT = (288, 576)
SCALES = (
    DEFAULT, (288, 416, 576), (224, 288, 416, 576), (288, 576, 768), (224, 288, 416, 576, 768),
    (416, 768), (288, 768), (288,), (416,), (576,), (768,),
)  # fmt: skip
CROP, SIDE = 0.6, 576  # share of height and width of a corner crop; short side it is resized to
SUPERPIXELS = (150, 400)  # per image
Map = tuple[np.ndarray, tuple[float, float]]


def scale_maps(classifier: CamClassifier, image: Tensor, side: int, label: int) -> cam.ScaleMaps:
    """Compute the maps of an image and of its mirror image at one scale."""
    maps, _, stride = cam.batch_maps(
        [image], side, [False, True], classifier.view_maps(None), [torch.tensor([label])],
        classifier.normalize, classifier.pad_multiple, "extent",
    )  # fmt: skip
    return cam.ScaleMaps(maps, stride, cam.resized_size((image.shape[1], image.shape[2]), side))


def merged(scales: list[cam.ScaleMaps], size_hw: tuple[int, int]) -> Map:
    """Merge scales as the rule does, the largest first."""
    result = cam.merge_scales(scales, size_hw, "extent")
    return result.maps[0].numpy(), result.cell_size


def with_crops(
    classifier: CamClassifier, image: Tensor, label: int, whole: np.ndarray
) -> np.ndarray:
    """Average the map of the image with those of four overlapping crops at its corners.

    Args:
        classifier: Of the maps.
        image: Shape (3, H, W).
        label: Class of the maps.
        whole: Map of the image in [0, 1], shape (H, W).
    """
    height, width = image.shape[1:]
    rows, columns = max(1, round(CROP * height)), max(1, round(CROP * width))
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for top in (0, height - rows):
        for left in (0, width - columns):
            inside = np.s_[top : top + rows, left : left + columns]
            scale = scale_maps(classifier, image[(slice(None), *inside)], SIDE, label)
            values, cell = merged([scale], (rows, columns))
            total[inside] += cam.map_over_image(values, cell, (rows, columns))
            count[inside] += 1
    return (whole + total / count) / 2


def superpixel_means(image: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Replace the values of a map by their means over superpixels.

    Superpixels are the basins of a watershed on the image from a regular grid of markers
    (waterpixels, Machairas et al., IEEE Transactions on Image Processing 2015).

    Args:
        image: BGR, uint8, shape (H, W, 3).
        values: Map, shape (H, W).
        count: About how many superpixels.
    """
    height, width = values.shape
    step = max(3, round((height * width / count) ** 0.5))
    markers = np.zeros((height, width), np.int32)
    centres = [np.arange(step // 2, side, step) for side in (height, width)]
    y, x = np.meshgrid(*centres, indexing="ij")
    markers[y, x] = np.arange(1, y.size + 1).reshape(y.shape)
    smooth = cv2.bilateralFilter(image, 5, 30, 5)
    labels = cv2.watershed(smooth, markers)
    inside = labels > 0  # -1 marks the boundaries
    sums = np.bincount(labels[inside], values[inside], y.size + 1)
    means = sums / np.bincount(labels[inside], minlength=y.size + 1).clip(min=1)
    result = np.where(inside, means[labels.clip(min=0)], 0).astype(np.float32)
    return np.where(inside, result, cv2.dilate(result, np.ones((3, 3), np.uint8)))


def compute(args: argparse.Namespace) -> Iterator[Case]:
    """Compute the maps of all images."""
    for classifier, image, label, truth in labelled_images(args):
        size_hw = (image.shape[1], image.shape[2])
        with torch.inference_mode():
            by_side = {
                side: scale_maps(classifier, image, side, label)
                for side in sorted({side for sides in SCALES for side in sides}, reverse=True)
            }
            maps = {
                f"scales {' '.join(map(str, sides))}": merged(
                    [scale for side, scale in by_side.items() if side in sides], size_hw
                )
                for sides in SCALES
            }
            over = cam.map_over_image(*maps[f"scales {' '.join(map(str, DEFAULT))}"], size_hw)
            maps["with crops"] = with_crops(classifier, image, label, over), (1.0, 1.0)
        bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        for count in SUPERPIXELS:
            means = superpixel_means(bgr, over, count)
            maps[f"means over {count} superpixels"] = means, (1.0, 1.0)
            maps[f"half means over {count} superpixels"] = (over + means) / 2, (1.0, 1.0)
        yield Case(size_hw, truth, maps)


def main() -> None:
    """Compute the maps if the file is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args()
    cases = cases_of(args, parser, compute)
    variants = {name: partial(rule_boxes, name=name) for name in cases[0].maps}
    report(cases, variants, next(iter(variants)))


if __name__ == "__main__":
    main()
