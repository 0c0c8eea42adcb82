"""Section of the inspection page on the quality of the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dap.evaluation.quality_table import quality_table

from .gallery import encoded, montage, write_picture
from .page import Section, image_source
from .store_pictures import StorePictures, stored_image

PER_CLASS = 3


def images_of_worst_classes(result: Mapping[str, Any]) -> list[int]:
    """List the images that :func:`quality_section` shows, by their index in the store.

    Args:
        result: Result of :func:`dap.evaluation.evaluate.evaluate_boxes`.
    """
    return [index for worst in result.get("worst_classes", ()) for index in _shown_images(worst)]


def quality_section(
    result: Mapping[str, Any], pictures: StorePictures, out: Path | None = None
) -> Section:
    """Write figures against ground truth, and show images of the worst classes.

    Args:
        result: Result of :func:`dap.evaluation.evaluate.evaluate_boxes`.
        pictures: Draws the images with their true boxes.
        out: PNG file to write the pictures to.
    """
    shown, tiles = [], []
    for worst in result.get("worst_classes", ()):
        name = worst.get("readable_name") or worst.get("name", "all classes")
        for index in _shown_images(worst):
            image = stored_image(pictures.store, index)
            tiles.append(pictures.tile(image))
            outcome = "missed" if index in worst["missed_images"] else "found"
            caption = f"{name}, CorLoc {worst['corloc']:.2f}: {outcome}, {image.file_name}"
            shown.append((caption, image_source(encoded(tiles[-1]), "jpeg")))
    if tiles and out is not None:
        write_picture(out, montage(tiles, columns=PER_CLASS))
    text = "Figures in percent; dap/evaluation/localization.py defines them."
    if tiles:
        text += " Below, images of the classes with the lowest CorLoc, true boxes in white."
    return Section("Quality against true boxes", [text], quality_table(dict(result)), (), shown)


def _shown_images(worst: Mapping[str, Any]) -> list[int]:
    """A few images of a class, those with missed boxes first."""
    return [*worst["missed_images"], *worst["found_images"]][:PER_CLASS]
