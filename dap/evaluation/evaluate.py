"""The boxes of a store, and the maps they came from, against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from dap.progress import Progress
from dap.store.reader import PseudoBoxStore

from .ground_truth import GroundTruth
from .localization import LocalizationQuality
from .masks import MaskQuality, PixelAveragePrecision, union
from .matching import MatchedImage, Matching, file_names
from .max_box_accuracy import MaxBoxAccuracy
from .name_matching import match_images

T = TypeVar("T")
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

    Images are matched by name, see :func:`~dap.evaluation.name_matching.match_images`, categories
    by theirs. Objects of categories that the store does not have are counted and, unless classes
    make no difference, left out. Images that Step 2 could not use have no boxes, so that their
    objects are missed; they have no maps.

    Per τ, only boxes that are in the store count. A store merged by NMS has lost those of a higher
    τ that a larger box covers: for figures per τ, give a run without NMS.

    Args:
        store: The boxes.
        truth: The ground truth.
        score_maps: Gives the maps of many images, for MaxBoxAcc and MaxBoxAccV2, such as
            :meth:`StoredMaps.score_maps`. It takes all images at once, each as its file name with
            the labels of its objects. For each image, in that order, it gives label → map at the
            size of the image, any finite values, shape (H, W); or as text why there is none.
        class_agnostic: Whether boxes may be of any class. Always so where the truth has no classes.
        worst: How many of the worst classes to list.
        most_maps: Number of images, evenly over all, whose maps are judged. Defaults to all.
        progress: Whether to show how far the work is.

    Returns:
        What JSON can hold. ``store`` (hash of what it was made from, thresholds, NMS), ``truth``
        (layout, numbers of images, objects and objects without area), ``matched`` (numbers of
        images and categories on either side that have no match), ``class_agnostic``; then the
        figures of :meth:`LocalizationQuality.summary`, with ``per_class`` as a list in label order
        and ``name`` and ``readable_name`` in it and in ``worst_classes``, whose numbers of images
        are indices in the store; with maps, ``score_maps``: the figures of
        :meth:`MaxBoxAccuracy.summary` at the run's thresholds, its classes likewise a list, and
        ``failed``: images whose maps could not be computed, by name, with the reason.

    Raises:
        ValueError: If no image or no category matches, no matched image has an object, or maps are
            asked for and the truth has no classes, or none can be computed.
    """
    matching = Matching(store, truth, class_agnostic)
    if score_maps is not None and truth.categories is None:
        raise ValueError(
            f"a ground truth from {truth.layout} has no classes, and a map is that of a class. "
            "Take ImageNet's XML files or LOC_val_solution.csv, which have them"
        )
    quality = LocalizationQuality(store.thresholds, matching.class_agnostic)
    mask_quality = MaskQuality(matching.class_agnostic)
    with_maps = set(evenly_spread(len(matching.images), most_maps))
    requests: dict[int, Request] = {}
    for place, image in enumerate(_shown(matching, len(matching.images), progress)):
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
        if image.size_hw[0] and place in with_maps and (labels := image.counted_labels()):
            requests[image.number] = image.file_name, labels
    if not quality.images:
        raise ValueError(
            f"{len(matching.images)} images of the store are in the ground truth, and none of "
            "them has an object of a category of the store: take the whole ground truth"
        )
    names = [_names(item) for item in store.categories]
    own_names = [{}] if matching.class_agnostic else names
    result = matching.report() | quality.summary(worst)
    result["per_class"] = _listed(result["per_class"], own_names)
    for worst_class in result["worst_classes"]:
        worst_class |= own_names[worst_class["label"]]
    if matching.has_masks:
        result["masks"] = mask_quality.summary()
    if score_maps is not None:
        judged = _judge_maps(matching, score_maps, requests, progress)
        judged["per_class"] = _listed(judged["per_class"], names)
        result["score_maps"] = judged
    return result


def evenly_spread(length: int, most: int | None = None) -> list[int]:
    """Choose indices of a sequence, each from the middle of one of as many equal parts.

    Args:
        length: Of the sequence.
        most: How many at most; None for all.
    """
    count = length if most is None else min(length, most)
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]


def truth_by_image(store: PseudoBoxStore, truth: GroundTruth) -> dict[int, np.ndarray]:
    """True boxes of the images that store and ground truth have in common, to be looked at.

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


def _judge_maps(
    matching: Matching, score_maps: ScoreMaps, requests: dict[int, Request], progress: bool
) -> dict[str, Any]:
    """Judge the maps of some images, by index in the store, one image after the other."""
    accuracy, pixels = MaxBoxAccuracy(), PixelAveragePrecision()
    failed: dict[str, str] = {}
    all_maps = _shown(score_maps(list(requests.values())), len(requests), progress)
    for number, maps in zip(requests, all_maps, strict=True):
        image = matching.image(number)
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
        some = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
        raise ValueError(f"no map could be computed: {some}. Is it the folder of the images?")
    store = matching.store  # multiples of Otsu's threshold are no fixed thresholds of a map
    fixed = [] if store.rule == "extent" else store.thresholds
    px_ap = {"px_ap": pixels.value()} if pixels.maps else {}
    return {**accuracy.summary(fixed), **px_ap, "failed": failed}


def _add_maps(accuracy: MaxBoxAccuracy, maps: dict[int, np.ndarray], image: MatchedImage) -> None:
    """Count the map of each class of an image, given the class."""
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
    """Count the pixels of the map of each class of an image."""
    counted = image.counted()
    for label in image.counted_labels():
        of_class = image.truth_labels == label
        truth, ignored = (
            union(image.truth_masks, of_class & kind, image.size_hw)
            for kind in (counted, image.truth_ignored)
        )
        pixels.add(maps[label], truth, ignored)


def _shown(items: Iterable[T], count: int, progress: bool) -> Iterator[T]:
    """Pass items on, with a progress bar if asked for."""
    if not progress:
        yield from items
        return
    shown = Progress(count, count)
    for item in items:
        yield item
        shown.step()
    shown.close()


def _names(category: dict[str, Any]) -> dict[str, Any]:
    return {key: category[key] for key in ("name", "readable_name") if key in category}


def _listed(per_class: dict[int, Any], names: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"label": label, **names[label], **figures} for label, figures in per_class.items()]
