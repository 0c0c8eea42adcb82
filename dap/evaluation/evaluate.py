"""Evaluate the boxes of a store, and the maps that they come from, against ground truth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from dap.store.reader import PseudoBoxStore

from .ground_truth import GroundTruth
from .localization import LocalizationQuality
from .masks import MaskQuality, PixelAveragePrecision, union
from .matching import MatchedImage, Matching, file_names
from .max_box_accuracy import MaxBoxAccuracy
from .name_matching import match_images

Request = tuple[str, list[int]]
ScoreMaps = Callable[[Sequence[Request]], Iterable[dict[int, np.ndarray] | str]]


def evaluate_boxes(
    store: PseudoBoxStore,
    truth: GroundTruth,
    score_maps: ScoreMaps | None = None,
    *,
    class_agnostic: bool = False,
    worst: int = 10,
    most_maps: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate the pseudo boxes of the images that have ground truth.

    Images and categories are matched by name, see :mod:`dap.evaluation.name_matching`. Objects of
    categories that the store does not have are counted and, unless classes are disregarded, left
    out. Images that Step 2 could not use have no boxes, so that all their objects count as missed,
    and no maps.

    Figures per τ use only boxes in the store. NMS has removed boxes of a higher τ that a larger box
    covers: for figures per τ, evaluate a run without NMS.

    Args:
        store: The boxes.
        truth: The ground truth.
        score_maps: Function that returns the maps of images, for MaxBoxAcc and MaxBoxAccV2, such
            as :meth:`StoredMaps.score_maps`. It is called once with the file name and the labels
            of the objects per image. It yields, per image, label → map of finite values at the
            size of the image, shape (H, W), or a text that says why there is none.
        class_agnostic: Whether classes are disregarded, as they are if the truth has none.
        worst: Number of worst classes to list.
        most_maps: Maximum number of images, spaced evenly, whose maps are evaluated. Defaults to
            all.
        progress: Whether to show a progress bar.

    Returns:
        Values that JSON can hold: ``store`` (identity of the run, thresholds, NMS), ``truth``
        (layout, numbers of images, objects and objects without area), ``matched`` (numbers of
        images and categories on either side that have no match), ``class_agnostic``; the figures
        of :meth:`LocalizationQuality.summary`, with ``per_class`` as a list in label order, with
        ``name`` and ``readable_name`` added to it and to ``worst_classes``, and with images
        numbered as in the store. With maps, ``score_maps`` has the figures of
        :meth:`MaxBoxAccuracy.summary` at the run's thresholds, its classes likewise as a list, and
        ``failed``: file name → reason of images whose maps could not be computed.

    Raises:
        ValueError: If no image or no category matches, if no matched image has an object, or if
            maps are requested and the truth has no classes or no map can be computed.
    """
    matching = Matching(store, truth, class_agnostic)
    if score_maps is not None and truth.categories is None:
        raise ValueError(
            f"a ground truth from {truth.layout} has no classes, and a map is computed per class. "
            "Use ImageNet's XML files or LOC_val_solution.csv, which have them"
        )
    quality = LocalizationQuality(store.thresholds, matching.class_agnostic)
    mask_quality = MaskQuality(matching.class_agnostic)
    with_maps = set(evenly_spread(len(matching.images), most_maps))
    requests: dict[int, Request] = {}
    for position, image in enumerate(_bar(matching, len(matching.images), progress)):
        quality.add(
            image.boxes,
            image.labels,
            image.truth_boxes,
            image.truth_labels,
            thresholds=image.thresholds,
            truth_ignored=image.truth_ignored,
            image=image.number,
        )
        if matching.has_masks:
            mask_quality.add(
                (image.boxes, image.labels, image.masks),
                (image.truth_boxes, image.truth_labels, image.truth_masks),
                image.truth_ignored,
            )
        if image.size_hw[0] and position in with_maps and (labels := image.counted_labels()):
            requests[image.number] = image.file_name, labels
    if not quality.images:
        raise ValueError(
            f"{len(matching.images)} images of the store are in the ground truth, and none of "
            "them has an object of a category of the store: take the whole ground truth"
        )
    names = [_names(item) for item in store.categories]
    names_of_labels = [{}] if matching.class_agnostic else names
    result = matching.report() | quality.summary(worst)
    result["per_class"] = _as_list(result["per_class"], names_of_labels)
    for worst_class in result["worst_classes"]:
        worst_class |= names_of_labels[worst_class["label"]]
    if matching.has_masks:
        result["masks"] = mask_quality.summary()
    if score_maps is not None:
        figures = _evaluate_maps(matching, score_maps, requests, progress)
        figures["per_class"] = _as_list(figures["per_class"], names)
        result["score_maps"] = figures
    return result


def evenly_spread(length: int, most: int | None = None) -> list[int]:
    """Choose evenly spaced indices of a sequence: the middles of equal parts.

    Args:
        length: Length of the sequence.
        most: Maximum number of indices; None for all.
    """
    count = length if most is None else min(length, most)
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]


def truth_by_image(store: PseudoBoxStore, truth: GroundTruth) -> dict[int, np.ndarray]:
    """Return the true boxes of the images that store and ground truth have in common.

    Args:
        store: The pseudo boxes.
        truth: The ground truth.

    Returns:
        Index of the image in the store → boxes of all classes, xyxy, half-open, in pixels, shape
        (M, 4).

    Raises:
        ValueError: If no image matches.
    """
    matched = match_images(file_names(store), truth.names)
    return {index: truth.objects_of(matched[index])[0] for index in sorted(matched)}


def _evaluate_maps(
    matching: Matching, score_maps: ScoreMaps, requests: dict[int, Request], progress: bool
) -> dict[str, Any]:
    """Evaluate the maps of some images; the keys of ``requests`` are their indices in the store."""
    accuracy, pixels = MaxBoxAccuracy(), PixelAveragePrecision()
    failed: dict[str, str] = {}
    all_maps = _bar(score_maps(list(requests.values())), len(requests), progress)
    for index, maps in zip(requests, all_maps, strict=True):
        image = matching.image(index)
        if isinstance(maps, str):
            failed[image.file_name] = maps
            continue
        try:
            _add_maps(accuracy, maps, image)
            if matching.truth.masks is not None:
                _add_pixels(pixels, maps, image)
        except ValueError as error:
            failed[image.file_name] = f"ValueError: {error}"
    if not accuracy.maps:
        examples = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
        raise ValueError(f"no map could be computed: {examples}. Is it the folder of the images?")
    store = matching.store  # the thresholds of "extent" are multiples of Otsu's, not fixed values
    fixed = [] if store.rule == "extent" else store.thresholds
    px_ap = {"px_ap": pixels.value()} if pixels.maps else {}
    return {**accuracy.summary(fixed), **px_ap, "failed": failed}


def _add_maps(accuracy: MaxBoxAccuracy, maps: dict[int, np.ndarray], image: MatchedImage) -> None:
    """Add the maps of an image, one per class of its objects."""
    counted = image.counted()
    for label in image.counted_labels():
        score_map = maps[label]
        if score_map.shape != image.size_hw:
            raise ValueError(f"its map is of {score_map.shape}, the boxes are of {image.size_hw}")
        boxes = image.truth_boxes[counted & (image.truth_labels == label)]
        accuracy.add(score_map, boxes, label)


def _add_pixels(
    pixels: PixelAveragePrecision, maps: dict[int, np.ndarray], image: MatchedImage
) -> None:
    """Add the pixels of the maps of an image."""
    counted = image.counted()
    for label in image.counted_labels():
        is_label = image.truth_labels == label
        truth, ignored = (
            union(image.truth_masks, is_label & subset, image.size_hw)
            for subset in (counted, image.truth_ignored)
        )
        pixels.add(maps[label], truth, ignored)


def _bar(items: Iterable[Any], count: int, progress: bool) -> Iterable[Any]:
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(items, total=count, unit="img", mininterval=interval, disable=not progress)


def _names(category: dict[str, Any]) -> dict[str, Any]:
    return {key: category[key] for key in ("name", "readable_name") if key in category}


def _as_list(per_class: dict[int, Any], names: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"label": label, **names[label], **figures} for label, figures in per_class.items()]
