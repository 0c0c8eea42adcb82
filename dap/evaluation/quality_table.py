"""Format the figures of :func:`dap.evaluation.evaluate.evaluate_boxes` as text tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dap.cam import threshold_name


def quality_table(result: Mapping[str, Any]) -> str:
    """Format the figures over all classes, in percent, and the worst classes.

    Args:
        result: What :func:`~dap.evaluation.evaluate.evaluate_boxes` returns.
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
            "note: categories of the ground truth that are not in the store: "
            f"{matched['categories_not_in_store']}, with "
            f"{matched['objects_of_categories_not_in_store']} of the objects"
        )
    if result["per_threshold"] and result["store"]["nms_iou"] is not None:
        lines.append(
            f"note: NMS at IoU {result['store']['nms_iou']} has merged the boxes: figures per "
            "threshold use the remaining boxes"
        )
    if failed := result.get("score_maps", {}).get("failed"):
        name, why = next(iter(failed.items()))
        lines.append(f"note: images without a map: {len(failed)}, such as {name}: {why}")
    if not result["class_agnostic"]:
        lines.append("")
        lines += [
            f"{'worst classes' if not i else '':<16}{_percent(worst['corloc'])}  "
            f"{' '.join(dict.fromkeys((worst['name'], worst.get('readable_name', '')))).strip()}: "
            f"missed images: {len(worst['missed_images'])}, found: {len(worst['found_images'])}"
            for i, worst in enumerate(result["worst_classes"])
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
    if masks := result.get("masks"):
        figures.append(("masks: mean IoU over the objects", masks["mean_iou"]))
        figures.append(("masks: precision, IoU .5", masks["precision"]))
        figures.append(("masks: recall, IoU .5", masks["recall"]))
    if best := result["best_threshold"]:
        name = _name(best["largest_box"]["threshold"], result)
        figures.append((f"largest box, best ({name})", best["largest_box"]["accuracy"]))
        figures.append(("any box, best threshold, .3 .5 .7", best["any_box"]))
    if maps := result.get("score_maps"):
        label = f"MaxBoxAcc of the maps ({maps['thresholds']['max_box_acc']})"
        figures.append((label, maps["max_box_acc"]))
        figures.append((f"MaxBoxAccV2 of {maps['images']} maps", maps["max_box_acc_v2"]))
        if "px_ap" in maps:
            figures.append(("PxAP of the maps", maps["px_ap"]))
    return ["", *(f"{name:<34}{_percent(value)}" for name, value in figures)]


def _table_of_sizes(by_size: dict[str, Any]) -> list[str]:
    lines = ["", f"{'size':<8}{'objects':>10}{'recall':>8}{'boxes':>10}{'precision':>11}"]
    for name, figures in by_size.items():
        recall, precision = _percent(figures["recall"]), _percent(figures["precision"])
        lines.append(
            f"{name:<8}{figures['objects']:>10}{recall:>8}{figures['boxes']:>10}{precision:>11}"
        )
    return lines


def _table_of_thresholds(result: Mapping[str, Any]) -> list[str]:
    """Shares of correct boxes per threshold and IoU, and those of the maps at the same τ."""
    if not result["per_threshold"]:
        return []
    lines = ["", f"{'threshold':<13}{'largest box .3 .5 .7':<24}{'any box .3 .5 .7':<24}"]
    at_fixed = result.get("score_maps", {}).get("at_fixed_thresholds", {})
    lines[-1] += "map's largest .5, all .3 .5 .7" if at_fixed else ""
    for tau, figures in result["per_threshold"].items():
        cells = [map(_percent, figures[kind].values()) for kind in ("largest_box", "any_box")]
        line = f"{_name(float(tau), result):<13}" + "".join(
            f"{' '.join(cell):<24}" for cell in cells
        )
        if tau in at_fixed:
            figures = at_fixed[tau]
            values = [figures["max_contour"], *figures["all_contours_by_iou"].values()]
            line += " ".join(map(_percent, values))
        lines.append(line)
    return lines


def _name(threshold: float, result: Mapping[str, Any]) -> str:
    return threshold_name(threshold, result["store"].get("rule"))


def _percent(share: float | None) -> str:
    return "    -" if share is None else f"{100 * share:5.1f}"
