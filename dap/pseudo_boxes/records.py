"""From the maps of an image to its record: boxes, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dap.cam import ScaleMaps, box_candidates, merge_scales
from dap.cam.boxes import is_constant
from dap.store.masks import encode_mask

from .merging import FLAT, NO_LABEL, NOTHING_ABOVE, merged_boxes, rounded
from .settings import PseudoBoxSettings
from .window import ImageMaps

Record = Mapping[str, Any]


def image_record(image: ImageMaps, settings: PseudoBoxSettings) -> Record:
    """Find the boxes of one image; say why where there are none.

    Returns:
        What :meth:`dap.store.writer.StoreWriter.write` takes, without ``id``.
    """
    name = {"file_name": image.entry.file_name}
    if image.error is not None:
        return {**name, "reason": image.error}
    scales = [
        ScaleMaps(torch.from_numpy(maps), stride, size_hw) for maps, stride, size_hw in image.scales
    ]
    merged = merge_scales(scales, image.size_hw, settings.rule)
    maps = merged.maps.numpy()
    if not np.isfinite(maps).all():
        return {**name, "reason": "FloatingPointError: the activation map is NaN or infinite"}
    labels = image.entry.labels.tolist()
    grid = merged.cell_size, image.size_hw
    found = [
        (
            label,
            rounded(box_candidates(cam, settings.thresholds, settings.rule, *grid, settings.masks)),
        )
        for label, cam in zip(labels, maps, strict=True)
    ]
    record = {
        **name,
        "height": image.size_hw[0],
        "width": image.size_hw[1],
        **merged_boxes(found, settings),
        "top1": image.top in labels,
    }
    if "masks" in record:
        record["masks"] = [encode_mask(own.over_image(image.size_hw)) for own in record["masks"]]
    if not record["boxes"]:
        flat = all(is_constant(cam) for cam in maps)
        record["reason"] = NO_LABEL if not labels else FLAT if flat else NOTHING_ABOVE
    return record


def window_records(
    images: Sequence[ImageMaps], settings: PseudoBoxSettings
) -> list[tuple[ImageMaps, Record]]:
    """Records of the images of a window, each with its image, the maps left out."""
    return [(image._replace(scales=[]), image_record(image, settings)) for image in images]
