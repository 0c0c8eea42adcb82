"""Write a page on the boxes of a run, for a check before the training."""

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
A2_IMAGES = 2000  # of which Table A2 is made where no map is needed
PANEL_IMAGES, PANEL_SIDE = 8, 160  # the pictures under each threshold and NMS
LISTED, KINDS = 200, 50  # failed images, classes and kinds of faults on the page


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
    """Write a self-contained HTML page on the boxes of a store, and its pictures as PNG.

    It shows galleries (random, by class, the most, fewest, smallest and largest boxes, none), the
    paper's Tables A1 and A2 for this run, the same images under each threshold and each NMS
    (Figures A1, A2), distributions, counts per class, and the images that failed.

    Args:
        store: The boxes.
        out: Folder to write: ``index.html`` and PNG files.
        maps: The maps of the run, computed again for the images that are shown. Without them
            there are no overlays, and what a merging NMS has dropped is not to be had.
        image_root: Folder of the images. Defaults to the one that the store was made from.
        truth: Ground truth: its boxes are drawn in white.
        quality: What :func:`dap.evaluation.evaluate.evaluate_boxes` says of the store.
        sections: What else the page shows.
        count: Images per gallery.
        seed: Which images are random.

    Returns:
        The page.

    Raises:
        ValueError: If ``count`` is below 1, or the store has no image.
        OSError: If the folder cannot be written.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 image, found {count}")
    folder = Path(out)
    summary = json.loads((store.folder / SUMMARY).read_text(encoding="utf-8"))
    seen = survey(store)
    pictures = StorePictures(store, image_root, maps)
    if truth is not None:
        pictures.truth = truth_by_image(store, truth)
    chosen = selections(seen, count, seed)
    shown = [index for _, indices in chosen.values() for index in indices]
    shown += images_of_worst_classes(quality or {})
    pictures.compute_maps(stored_image(store, index) for index in shown)
    if quality is not None:
        sections = [quality_section(quality, pictures, folder / WORST), *sections]
    find = candidate_finder(store, pictures)
    random = [stored_image(store, index) for index in chosen["random"][1]]
    _write_classes(store, seen, folder / "classes.csv")
    content = {
        "name": store.folder.resolve().name,
        "facts": _facts(store, summary),
        "verdict": verdict(seen, summary),
        "legend": _legend(store),
        "truth": truth is not None,
        "masks": store.has_masks,
        "tables": _tables(store, seen, random, find),
        "histograms": _histograms(seen, folder),
        "galleries": list(_galleries(store, chosen, pictures, folder)),
        "panels": list(_panels(store, random[:PANEL_IMAGES], find, pictures, folder)),
        "sections": sections,
        "classes": _class_rows(store, seen),
        "class_count": len(store.categories),
        "failed": summary["failed"][:LISTED],
        "failed_count": len(summary["failed"]),
        "without": summary["without_boxes"],
        "reasons": Counter(_kind(item["reason"]) for item in summary["failed"]).most_common(KINDS),
        "unreadable": sorted(pictures.unreadable.items()),
        "maps": maps is not None,
        "seed": seed,
    }
    write_bytes(folder / PAGE, render_page(content))
    return folder / PAGE


def _facts(store: PseudoBoxStore, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, and how many images and boxes it has."""
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
    """Thresholds, lowest first, and the colours of their boxes as ``#rrggbb``."""
    taus = sorted(range(len(store.thresholds)), key=store.thresholds.__getitem__)
    colours = [colour_of(i, store.thresholds)[::-1] for i in taus]
    names = [store.threshold_names()[i] for i in taus]
    if any((shard.thresholds == NO_THRESHOLD).any() for shard in store.shards):
        names, colours = [*names, "threshold not known"], [*colours, UNKNOWN_BGR[::-1]]
    return [(n, "#{:02x}{:02x}{:02x}".format(*c)) for n, c in zip(names, colours, strict=True)]


def _tables(
    store: PseudoBoxStore,
    seen: Survey,
    random: Sequence[StoredImage],
    find: FindCandidates | None,
) -> Section:
    """Tables A1 and A2 with their captions."""
    title = "The paper's tables for this run"
    if find is None:
        text = (
            "Single thresholds and other NMS (Tables A1 and A2): all boxes of a threshold are "
            "needed. Of a run of Step 2, give config and checkpoint of the classifier (--maps), or "
            "make a run without NMS."
        )
        return Section(title, [text])
    which = "the {} images shown as random"
    if find is stored_candidates:  # which needs no map
        usable = np.flatnonzero(seen.usable)
        random = [
            stored_image(store, int(usable[i])) for i in evenly_spread(len(usable), A2_IMAGES)
        ]
        which = "{} images, evenly over the run"
    candidates = [found for found in map(find, random) if found is not None]
    which, settings = which.format(len(candidates)), PseudoBoxSettings.from_store(store)
    a1 = f"Thresholds (Table A1): {which}", table_a1(candidates, settings)
    a2 = f"NMS (Table A2): {which}", table_a2(candidates, settings)
    return Section(title, tables=[a1, a2])


def _histograms(seen: Survey, folder: Path) -> list[dict[str, str]]:
    drawn = draw_histograms(seen)
    for number, (_, png) in enumerate(drawn):
        write_bytes(folder / f"histogram{number}.png", png)
    return [{"title": title, "src": image_source(png, "png")} for title, png in drawn]


def _galleries(
    store: PseudoBoxStore,
    chosen: Mapping[str, tuple[str, Sequence[int]]],
    pictures: StorePictures,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Draw each gallery, for the page and as a file; one without images has no file."""
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
    # ImageNet's names are lists of synonyms.
    classes = ", ".join(_readable(store.categories[i]).split(",")[0] for i in labels)
    number = len(image.boxes)
    text = f"{classes}: {number} box{'es' if number > 1 else ''}" if number else "no box"
    return {"file": image.file_name, "text": text}


def _readable(category: Mapping[str, Any]) -> str:
    return str(category.get("readable_name", category["name"]))


def _panels(
    store: PseudoBoxStore,
    images: Sequence[StoredImage],
    find: FindCandidates | None,
    pictures: StorePictures,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """The same images under each threshold (Figure A1) and under each NMS (Figure A2)."""
    candidates = {} if find is None else {image.index: find(image) for image in images}
    shown = [image for image in images if candidates.get(image.index) is not None]
    if not shown:
        return
    settings = PseudoBoxSettings.from_store(store)
    everything = list(range(len(settings.thresholds)))
    titles = [name.replace("τ", "tau") for name in store.threshold_names()]
    single = {titles[i]: ([i], settings.nms_iou) for i in everything}
    alone = {**single, "all": (everything, settings.nms_iou)}
    merged = {f"NMS {iou or 'none'}": (everything, iou) for iou in NMS_IOUS}
    for name, title, columns in (
        ("thresholds", "Each threshold alone, and all (Figure A1)", alone),
        ("nms", "All thresholds under each NMS (Figure A2)", merged),
    ):
        tiles = []
        for image in shown:
            for taus, nms_iou in columns.values():
                boxes = boxes_under(candidates[image.index] or [], settings, taus, nms_iou)
                tiles.append(pictures.tile(image, *boxes, side=PANEL_SIDE))
        picture = with_titles(montage(tiles, len(columns)), list(columns))
        write_picture(folder / f"{name}.png", picture)
        yield {"title": title, "src": image_source(encoded(picture), "jpeg")}


def _write_classes(store: PseudoBoxStore, seen: Survey, path: Path) -> None:
    """Write the counts of all classes as CSV."""
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["label", "name", "readable_name", "boxes", "images_with_boxes"])
        writer.writerows(_rows_of(store, seen, range(len(store.categories))))


def _class_rows(store: PseudoBoxStore, seen: Survey) -> list[list[Any]]:
    """The classes with the most boxes and with the fewest, most first; all if they are few."""
    order = np.argsort(-seen.class_boxes, kind="stable")
    if len(order) > LISTED:
        order = np.concatenate([order[: LISTED // 2], order[-LISTED // 2 :]])
    return list(_rows_of(store, seen, order.tolist()))


def _rows_of(store: PseudoBoxStore, seen: Survey, labels: Iterable[int]) -> Iterator[list[Any]]:
    for label in labels:
        category = store.categories[label]
        counts = int(seen.class_boxes[label]), int(seen.class_images[label])
        names = str(category["name"]), _readable(category)
        yield [label, *(n.encode("utf-8", "replace").decode() for n in names), *counts]


def _kind(reason: str) -> str:
    """What kind of fault a reason names: its first clause, names and numbers left out."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", reason.split(";")[0])[:100]
