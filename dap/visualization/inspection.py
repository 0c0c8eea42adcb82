"""Write a page that shows the boxes of a run, to check them before training."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dap.evaluation.evaluate import evenly_spread, truth_by_image
from dap.evaluation.ground_truth import GroundTruth
from dap.files import whole_file, write_bytes
from dap.pseudo_boxes.settings import PseudoBoxSettings
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.runs.verdict import verdict
from dap.store.reader import SUMMARY, PseudoBoxStore
from dap.store.shard import NO_THRESHOLD
from dap.store.survey import Survey, survey

from .gallery import UNKNOWN_BGR, colour_of, encoded, montage, with_titles, write_picture
from .histograms import draw_histograms
from .page import Section, image_source, render_page
from .quality import images_of_worst_classes, quality_section
from .selections import selections
from .store_pictures import StoredImage, StorePictures, stored_image
from .variants import (
    NMS_IOUS,
    FindCandidates,
    boxes_under,
    candidate_finder,
    stored_candidates,
    table_a1,
    table_a2,
)

PAGE, WORST = "index.html", "worst_classes.png"
TABLE_IMAGES = 2000  # images of Tables A1 and A2 if no map has to be computed
PANEL_IMAGES, PANEL_SIDE = 8, 160  # of Figures A1 and A2: images, side of a tile in pixels
MAX_LISTED, MAX_REASONS = 200, 50  # rows of classes and failed images; failure reasons


def inspect_boxes(
    store: PseudoBoxStore,
    out: str | os.PathLike[str],
    maps: StoredMaps | None = None,
    image_root: str | os.PathLike[str] | None = None,
    truth: GroundTruth | None = None,
    quality: Mapping[str, Any] | None = None,
    sections: Sequence[Section] = (),
    count: int = 24,
    seed: int = 0,
) -> Path:
    """Write a self-contained HTML page that shows the boxes of a store, and its pictures as PNG.

    The page has galleries (random images, images by class, those with the most, fewest, smallest
    and largest boxes, and with none), the paper's Tables A1 and A2 for this run, the same images
    with each threshold and each NMS (Figures A1, A2), distributions, counts per class, and the
    images that failed.

    Args:
        store: The boxes.
        out: Folder for ``index.html``, PNG files and ``classes.csv``.
        maps: Recomputes the maps of the images that are shown. Without it there are no overlays,
            and boxes that NMS removed cannot be shown.
        image_root: Folder of the images. Defaults to the one that the store was made from.
        truth: Ground truth, whose boxes are drawn in white.
        quality: Result of :func:`dap.evaluation.evaluate.evaluate_boxes` for the store.
        sections: Further sections of the page.
        count: Images per gallery.
        seed: Seed of the random choices.

    Returns:
        Path of the page.

    Raises:
        ValueError: If ``count`` is below 1, or the store has no image.
        OSError: If the folder cannot be written.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 image, found {count}")
    folder = Path(out)
    summary = json.loads((store.folder / SUMMARY).read_text(encoding="utf-8"))
    box_survey = survey(store)
    pictures = StorePictures(store, image_root, maps)
    if truth is not None:
        pictures.truth = truth_by_image(store, truth)
    chosen = selections(box_survey, count, seed)
    shown = [index for _, indices in chosen.values() for index in indices]
    shown += images_of_worst_classes(quality or {})
    pictures.compute_maps(stored_image(store, index) for index in shown)
    if quality is not None:
        sections = [quality_section(quality, pictures, folder / WORST), *sections]
    find_candidates = candidate_finder(store, pictures)
    random = [stored_image(store, index) for index in chosen["random"][1]]
    _write_classes(store, box_survey, folder / "classes.csv")
    content = {
        "name": store.folder.resolve().name,
        "facts": _facts(store, summary),
        "verdict": verdict(box_survey, summary),
        "legend": _legend(store),
        "truth": truth is not None,
        "masks": store.has_masks,
        "tables": _tables(store, box_survey, random, find_candidates),
        "histograms": _histograms(box_survey, folder),
        "galleries": list(_galleries(store, chosen, pictures, folder)),
        "panels": list(_panels(store, random[:PANEL_IMAGES], find_candidates, pictures, folder)),
        "sections": sections,
        "classes": _class_rows(store, box_survey),
        "class_count": len(store.categories),
        "failed": summary["failed"][:MAX_LISTED],
        "failed_count": len(summary["failed"]),
        "without": summary["without_boxes"],
        "reasons": Counter(
            _general_reason(item["reason"]) for item in summary["failed"]
        ).most_common(MAX_REASONS),
        "unreadable": sorted(pictures.unreadable.items()),
        "maps": maps is not None,
        "seed": seed,
    }
    write_bytes(folder / PAGE, render_page(content))
    return folder / PAGE


def _facts(store: PseudoBoxStore, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the run's counts and settings."""
    merged, settings = summary["merged"], summary["settings"]
    counts = {
        "images": summary["images"],
        "boxes": merged["boxes"],
        "boxes per image": merged["boxes_per_image"],
        "mean width, px": merged["mean_width"],
        "mean height, px": merged["mean_height"],
        "images without a box": summary["images_without_boxes"],
        "images that failed": len(summary["failed"]),
        "top-1 of the classifier on them": summary["top1"],
        "classes": len(store.categories),
    }
    run = {**summary["classifier"], "checkpoint": summary.get("checkpoint"), **settings}
    return [(name, str(value)) for name, value in (counts | run).items() if value is not None]


def _legend(store: PseudoBoxStore) -> list[tuple[str, str]]:
    """List the thresholds, lowest first, and the colours of their boxes as ``#rrggbb``."""
    taus = sorted(range(len(store.thresholds)), key=store.thresholds.__getitem__)
    colours = [colour_of(i, store.thresholds)[::-1] for i in taus]
    names = [store.threshold_names()[i] for i in taus]
    if any((shard.thresholds == NO_THRESHOLD).any() for shard in store.shards):
        names, colours = [*names, "threshold not known"], [*colours, UNKNOWN_BGR[::-1]]
    return [(n, "#{:02x}{:02x}{:02x}".format(*c)) for n, c in zip(names, colours, strict=True)]


def _tables(
    store: PseudoBoxStore,
    box_survey: Survey,
    random: Sequence[StoredImage],
    find_candidates: FindCandidates | None,
) -> Section:
    """Tables A1 and A2 with their captions."""
    title = "The paper's tables for this run"
    if find_candidates is None:
        text = (
            "Single thresholds and other NMS (Tables A1 and A2): all boxes of a threshold are "
            "needed. Give config and checkpoint of the classifier (--maps), or generate the boxes "
            "without NMS."
        )
        return Section(title, [text])
    sample = "the {} random images"
    if find_candidates is stored_candidates:  # needs no map
        usable = np.flatnonzero(box_survey.usable)
        random = [
            stored_image(store, int(usable[i])) for i in evenly_spread(len(usable), TABLE_IMAGES)
        ]
        sample = "{} images, evenly over the run"
    per_image = [by_label for by_label in map(find_candidates, random) if by_label is not None]
    sample, settings = sample.format(len(per_image)), PseudoBoxSettings.from_store(store)
    a1 = f"Thresholds (Table A1): {sample}", table_a1(per_image, settings)
    a2 = f"NMS (Table A2): {sample}", table_a2(per_image, settings)
    return Section(title, tables=[a1, a2])


def _histograms(box_survey: Survey, folder: Path) -> list[dict[str, str]]:
    drawn = draw_histograms(box_survey)
    for number, (_, png) in enumerate(drawn):
        write_bytes(folder / f"histogram{number}.png", png)
    return [{"title": title, "src": image_source(png, "png")} for title, png in drawn]


def _galleries(
    store: PseudoBoxStore,
    chosen: Mapping[str, tuple[str, Sequence[int]]],
    pictures: StorePictures,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Draw each gallery for the page and, if it has images, as a file."""
    for name, (title, indices) in chosen.items():
        images = [stored_image(store, index) for index in indices]
        tiles = [pictures.tile(image) for image in images]
        if tiles:
            write_picture(folder / f"gallery_{name}.png", montage(tiles))
        yield {
            "name": name,
            "title": title,
            "pictures": [
                {"src": image_source(encoded(tile), "jpeg"), **_caption(store, image)}
                for tile, image in zip(tiles, images, strict=True)
            ],
        }


def _caption(store: PseudoBoxStore, image: StoredImage) -> dict[str, str]:
    labels = np.unique(image.labels).tolist()
    # ImageNet's class names are lists of synonyms; the first is shown.
    classes = ", ".join(_readable(store.categories[i]).split(",")[0] for i in labels)
    number = len(image.boxes)
    text = f"{classes}: {number} box{'es' if number > 1 else ''}" if number else "no box"
    return {"file": image.file_name, "text": text}


def _readable(category: Mapping[str, Any]) -> str:
    return str(category.get("readable_name", category["name"]))


def _panels(
    store: PseudoBoxStore,
    images: Sequence[StoredImage],
    find_candidates: FindCandidates | None,
    pictures: StorePictures,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Draw the same images with each threshold (Figure A1) and with each NMS (Figure A2)."""
    if find_candidates is None:
        return
    candidates = {image.index: find_candidates(image) for image in images}
    shown = [image for image in images if candidates.get(image.index) is not None]
    if not shown:
        return
    settings = PseudoBoxSettings.from_store(store)
    all_taus = list(range(len(settings.thresholds)))
    titles = [name.replace("τ", "tau") for name in store.threshold_names()]
    by_threshold = {titles[i]: ([i], settings.nms_iou) for i in all_taus}
    by_threshold["all"] = (all_taus, settings.nms_iou)
    by_nms = {f"NMS {iou or 'none'}": (all_taus, iou) for iou in NMS_IOUS}
    for name, title, columns in (
        ("thresholds", "Each threshold alone, and all (Figure A1)", by_threshold),
        ("nms", "All thresholds with each NMS (Figure A2)", by_nms),
    ):
        tiles = []
        for image in shown:
            for taus, nms_iou in columns.values():
                boxes = boxes_under(candidates[image.index] or [], settings, taus, nms_iou)
                tiles.append(pictures.tile(image, *boxes, side=PANEL_SIDE))
        picture = with_titles(montage(tiles, len(columns)), list(columns))
        write_picture(folder / f"{name}.png", picture)
        yield {"title": title, "src": image_source(encoded(picture), "jpeg")}


def _write_classes(store: PseudoBoxStore, box_survey: Survey, path: Path) -> None:
    """Write the counts of all classes as CSV."""
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["label", "name", "readable_name", "boxes", "images_with_boxes"])
        writer.writerows(_counts_of(store, box_survey, range(len(store.categories))))


def _class_rows(store: PseudoBoxStore, box_survey: Survey) -> list[list[Any]]:
    """Classes by descending number of boxes; if there are many, only the first and last."""
    order = np.argsort(-box_survey.class_boxes, kind="stable")
    if len(order) > MAX_LISTED:
        order = np.concatenate([order[: MAX_LISTED // 2], order[-MAX_LISTED // 2 :]])
    return list(_counts_of(store, box_survey, order.tolist()))


def _counts_of(
    store: PseudoBoxStore, box_survey: Survey, labels: Iterable[int]
) -> Iterator[list[Any]]:
    """Yield label, names, boxes and images with boxes of some classes."""
    for label in labels:
        category = store.categories[label]
        counts = int(box_survey.class_boxes[label]), int(box_survey.class_images[label])
        names = str(category["name"]), _readable(category)
        yield [label, *(n.encode("utf-8", "replace").decode() for n in names), *counts]


def _general_reason(reason: str) -> str:
    """First clause of a failure's reason, without names and numbers, to count equal ones."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", reason.split(";")[0])[:100]
