"""The boxes of a store, and the maps they came from, against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dap.pseudo_boxes.progress import Progress
from dap.pseudo_boxes.store import PseudoBoxStore

from .ground_truth import GroundTruth, match_categories, match_images
from .localization import LocalizationQuality
from .max_box_accuracy import MaxBoxAccuracy

ScoreMap = Callable[[str, int], np.ndarray]


def evaluate_boxes(
    store: PseudoBoxStore,
    truth: GroundTruth,
    score_map: ScoreMap | None = None,
    *,
    class_agnostic: bool = False,
    worst: int = 10,
    most_maps: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate the pseudo boxes of the images that have ground truth.

    Images are matched by name, see :func:`~dap.evaluation.ground_truth.match_images`, categories
    by theirs. Objects of categories that the store does not have are counted and, unless classes
    make no difference, left out. Images that Step 2 could not use have no boxes, so that their
    objects are missed; they have no maps.

    Per τ, only boxes that are in the store count. A store merged by NMS has lost those of a higher
    τ that a larger box covers: for figures per τ, give a run without NMS.

    Args:
        store: The boxes.
        truth: The ground truth.
        score_map: Gives the map of an image (file name) for a class (label) at the size of the
            image, any finite values, shape (H, W): for MaxBoxAcc and MaxBoxAccV2. With it, each
            class of each image has its map computed.
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
    matching = _Matching(store, truth, class_agnostic)
    if score_map is not None and truth.categories is None:
        raise ValueError(
            f"a ground truth from {truth.layout} has no classes, and a map is that of a class. "
            "Take ImageNet's XML files or LOC_val_solution.csv, which have them"
        )
    quality = LocalizationQuality(store.thresholds, matching.class_agnostic)
    accuracy = MaxBoxAccuracy()
    with_maps = every_nth(len(matching.images), most_maps)
    failed: dict[str, str] = {}
    for place, image in enumerate(_shown(matching) if progress else matching):
        quality.add(
            image.boxes,
            image.labels,
            image.truth_boxes,
            image.truth_labels,
            thresholds=image.thresholds,
            truth_ignored=image.truth_ignored,
            image=image.number,
        )
        if score_map is not None and image.size_hw[0] and place in with_maps:
            try:
                _add_maps(accuracy, score_map, image)
            except (OSError, ValueError) as error:
                failed[image.file_name] = f"{type(error).__name__}: {error}"
    if not quality.images:
        raise ValueError(
            f"{len(matching.images)} images of the store are in the ground truth, and none of "
            "them has an object of a category of the store: take the whole ground truth"
        )
    names = [_names(item) for item in store.categories]
    own_names = [{}] if matching.class_agnostic else names
    result = matching.report() | quality.summary(worst)
    result["per_class"] = _listed(result["per_class"], own_names)
    for own in result["worst_classes"]:
        own |= own_names[own["label"]]
    if score_map is not None:
        if not accuracy.maps:
            some = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
            raise ValueError(f"no map could be computed: {some}. Is it the folder of the images?")
        result["score_maps"] = accuracy.summary(store.thresholds)
        result["score_maps"]["failed"] = failed
        result["score_maps"]["per_class"] = _listed(result["score_maps"]["per_class"], names)
    return result


def every_nth(count: int, most: int | None) -> range:
    """Numbers evenly below ``count``, ``most`` of them at most; all for None."""
    step = 1 if most is None else max(1, -(-count // max(1, most)))
    return range(0, count, step)


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
    matched = match_images(_file_names(store), truth.names)
    return {index: truth.objects_of(matched[index])[0] for index in sorted(matched)}


class _Image(NamedTuple):
    """An image of the store, by its index there, with its ground truth.

    Its size is 0 if it could not be used.
    """

    number: int
    file_name: str
    size_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    thresholds: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    truth_ignored: np.ndarray


class _Matching:
    """The images that store and ground truth have in common, in the order of the store."""

    def __init__(self, store: PseudoBoxStore, truth: GroundTruth, class_agnostic: bool) -> None:
        self.store, self.truth = store, truth
        self.class_agnostic = class_agnostic or truth.categories is None
        self.images = match_images(_file_names(store), truth.names)
        self.failed = 0
        self.label_of = np.zeros(1, np.int64)
        if truth.categories is not None:
            self.label_of = match_categories(store.categories, truth.categories, class_agnostic)

    def __iter__(self) -> Iterator[_Image]:
        self.failed = 0
        for index in sorted(self.images):
            shard, row = self.store.locate(index)
            boxes, labels, thresholds = shard.boxes_of(row)
            truth_boxes, categories, ignored = self.truth.objects_of(self.images[index])
            truth_labels = self.label_of[categories]
            known = (truth_labels >= 0) | self.class_agnostic
            size_hw = int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row])
            self.failed += not size_hw[0]
            yield _Image(
                index,
                shard.file_name(row),
                size_hw,
                boxes,
                labels,
                thresholds,
                truth_boxes[known],
                truth_labels[known],
                ignored[known],
            )

    def report(self) -> dict[str, Any]:
        """What is compared, and what has no match on the other side."""
        manifest, truth = self.store.manifest, self.truth
        unknown = self.label_of < 0
        return {
            "store": {
                "identity": manifest["identity"],
                "thresholds": self.store.thresholds,
                "nms_iou": manifest["settings"].get("nms_iou"),
            },
            "truth": {
                "layout": truth.layout,
                "images": len(truth.names),
                "objects": len(truth.boxes),
                "objects_without_area": truth.without_area,
            },
            "matched": {
                "images": len(self.images),
                "images_that_failed": self.failed,
                "truth_images_not_in_store": len(truth.names) - len(self.images),
                "store_images_not_in_truth": len(self.store) - len(self.images),
                "categories_not_in_store": int(unknown.sum()),
                "objects_of_categories_not_in_store": int(unknown[truth.labels].sum()),
            },
            "class_agnostic": self.class_agnostic,
        }


def _shown(matching: _Matching) -> Iterator[_Image]:
    """The images, with progress."""
    progress = Progress(len(matching.images), len(matching.images))
    for image in matching:
        yield image
        progress.step()
    progress.close()


def _file_names(store: PseudoBoxStore) -> Iterator[str]:
    return (shard.file_name(row) for shard in store.shards for row in range(len(shard)))


def _add_maps(accuracy: MaxBoxAccuracy, score_map: ScoreMap, image: _Image) -> None:
    """Count the map of each class of an image, given the class."""
    counted = ~image.truth_ignored & (image.truth_labels >= 0)
    for label in sorted(set(image.truth_labels[counted].tolist())):
        own = counted & (image.truth_labels == label)
        found = score_map(image.file_name, label)
        if found.shape != image.size_hw:
            raise ValueError(f"its map is of {found.shape}, the boxes are of {image.size_hw}")
        accuracy.add(found, image.truth_boxes[own], label)


def _names(category: dict[str, Any]) -> dict[str, Any]:
    return {key: category[key] for key in ("name", "readable_name") if key in category}


def _listed(per_class: dict[int, Any], names: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"label": label, **names[label], **own} for label, own in per_class.items()]


def quality_table(result: Mapping[str, Any]) -> str:
    """The figures of all classes in percent, and the worst classes, for people.

    Args:
        result: What :func:`evaluate_boxes` returns.
    """
    matched = result["matched"]
    lines = [
        f"{result['images']} images with {result['objects']} objects and {result['boxes']} boxes "
        f"evaluated; of {result['truth']['images']} images of the ground truth "
        f"({result['truth']['layout']}) {matched['truth_images_not_in_store']} are not in the "
        f"store, {result['images_without_truth']} have no object",
        *_table_of_figures(result),
        *_table_of_sizes(result["by_size"]),
        *_table_of_thresholds(result),
    ]
    if matched["categories_not_in_store"]:
        lines.append(
            f"note: {matched['categories_not_in_store']} categories of the ground truth, with "
            f"{matched['objects_of_categories_not_in_store']} objects, are not in the store"
        )
    if result["per_threshold"] and result["store"]["nms_iou"] is not None:
        lines.append(
            f"note: NMS at IoU {result['store']['nms_iou']} has merged the boxes: figures per τ "
            "are of what it left"
        )
    if failed := result.get("score_maps", {}).get("failed"):
        name, why = next(iter(failed.items()))
        lines.append(f"note: {len(failed)} images have no map, such as {name}: {why}")
    if not result["class_agnostic"]:
        lines.append("")
        lines += [
            f"{'worst classes' if not i else '':<16}{_percent(own['corloc'])}  "
            f"{' '.join(dict.fromkeys((own['name'], own.get('readable_name', own['name']))))}: "
            f"{len(own['missed_images'])} images missed, {len(own['found_images'])} found"
            for i, own in enumerate(result["worst_classes"])
        ]
    return "\n".join(lines)


def _table_of_figures(result: Mapping[str, Any]) -> list[str]:
    figures = [
        ("GT-known localisation, IoU .5", result["gt_known_localization"]),
        ("CorLoc, mean over classes", result["corloc"]),
        ("precision, IoU .5", result["precision"]),
        ("recall, IoU .5", result["recall"]),
        ("average recall, IoU .5:.95", result["average_recall"]),
    ]
    if best := result["best_threshold"]:
        label = f"largest box, best τ ({best['largest_box']['threshold']})"
        figures.append((label, best["largest_box"]["accuracy"]))
        figures.append(("any box, best τ, IoU .3 .5 .7", best["any_box"]))
    if maps := result.get("score_maps"):
        label = f"MaxBoxAcc of the maps ({maps['thresholds']['max_box_acc']})"
        figures.append((label, maps["max_box_acc"]))
        figures.append((f"MaxBoxAccV2 of {maps['images']} maps", maps["max_box_acc_v2"]))
    return ["", *(f"{name:<34}{_percent(value)}" for name, value in figures)]


def _table_of_sizes(by_size: dict[str, Any]) -> list[str]:
    lines = ["", f"{'size':<8}{'objects':>10}{'recall':>8}{'boxes':>10}{'precision':>11}"]
    for name, own in by_size.items():
        recall, precision = _percent(own["recall"]), _percent(own["precision"])
        lines.append(f"{name:<8}{own['objects']:>10}{recall:>8}{own['boxes']:>10}{precision:>11}")
    return lines


def _table_of_thresholds(result: Mapping[str, Any]) -> list[str]:
    """Per τ the share of right boxes at each IoU, and that of the maps at the same threshold."""
    if not result["per_threshold"]:
        return []
    lines = ["", f"{'τ':<8}{'largest box .3 .5 .7':<24}{'any box .3 .5 .7':<24}"]
    at_fixed = result.get("score_maps", {}).get("at_fixed_thresholds", {})
    lines[-1] += "map's largest .5, all .3 .5 .7" if at_fixed else ""
    for tau, own in result["per_threshold"].items():
        cells = [map(_percent, own[kind].values()) for kind in ("largest_box", "any_box")]
        line = f"{tau:<8}" + "".join(f"{' '.join(cell):<24}" for cell in cells)
        if tau in at_fixed:
            own = at_fixed[tau]
            values = [own["max_contour"], *own["all_contours_by_iou"].values()]
            line += " ".join(map(_percent, values))
        lines.append(line)
    return lines


def _percent(share: float | None) -> str:
    return "    -" if share is None else f"{100 * share:5.1f}"
