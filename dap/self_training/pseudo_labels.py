"""Choose confident predictions as labels (paper, section 4.3, Table 9)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dap.files import output_file, whole_file


def choose_labels(
    images: Iterable[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    score: float = 0.6,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Keep the confident detections, and the best ones of each image.

    A detection is kept if its score is at least the threshold, or the highest of its image; ties
    are kept, too. First, boxes are clipped to the image, and those less than a pixel wide or high
    are dropped, as mmdet would do in training.

    Args:
        images: Images of a COCO file, with ``id``, ``width`` and ``height``.
        predictions: COCO results: ``image_id``, ``category_id``, ``score``, and ``bbox`` as xywh in
            pixels.
        score: Threshold in [0, 1].

    Returns:
        COCO annotations with their ``score`` and ids 1, 2, …, sorted by image and, within an
        image, in the order of the predictions; and the counts ``kept_by_score``, ``kept_as_best``
        (below the threshold), ``dropped_below_one_pixel`` and ``images_without_labels``.

    Raises:
        ValueError: If the threshold is outside [0, 1], or a prediction has an unknown image, or
            its score or box is not finite.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score: expected a threshold in [0, 1], found {score}")
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    per_image: dict[Any, list[tuple[Mapping[str, Any], list[float]]]] = defaultdict(list)
    for number, prediction in enumerate(predictions):
        _check_numbers(number, prediction)
        if prediction["image_id"] not in sizes:
            raise ValueError(
                f"prediction {number}: image_id {prediction['image_id']!r} is none of the "
                f"{len(sizes)} images. The predictions were made on other images"
            )
        box = _clipped(prediction["bbox"], *sizes[prediction["image_id"]])
        if min(box[2:]) >= 1:
            per_image[prediction["image_id"]].append((prediction, box))
    labels: list[dict[str, Any]] = []
    for image_id in sizes:
        best = max((prediction["score"] for prediction, _ in per_image[image_id]), default=math.inf)
        labels += [
            {
                "image_id": image_id,
                "category_id": prediction["category_id"],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": prediction["score"],
            }
            for prediction, box in per_image[image_id]
            if prediction["score"] >= min(score, best)
        ]
    confident = sum(label["score"] >= score for label in labels)
    counts = {
        "kept_by_score": confident,
        "kept_as_best": len(labels) - confident,
        "dropped_below_one_pixel": len(predictions) - sum(map(len, per_image.values())),
        "images_without_labels": sum(not per_image[image_id] for image_id in sizes),
    }
    return [{"id": number, **label} for number, label in enumerate(labels, 1)], counts


def write_pseudo_labels(
    images_json: str | os.PathLike[str],
    predictions_json: str | os.PathLike[str],
    out: str | os.PathLike[str],
    score: float = 0.6,
) -> dict[str, Any]:
    """Write a COCO file with images and the labels that :func:`choose_labels` keeps.

    Args:
        images_json: COCO file with images and categories, but without annotations.
        predictions_json: The file ``….bbox.json`` that mmdet's ``CocoMetric(format_only=True,
            outfile_prefix=…)`` writes.
        out: File to write. The same input gives the same bytes.
        score: Threshold in [0, 1].

    Returns:
        The file's ``info``: threshold, sha256 of the predictions, counts.

    Raises:
        FileExistsError: If ``out`` exists with other content.
        OSError: If a file cannot be read, or ``out`` is a folder.
        ValueError: If a file has another format, the images have annotations, or a prediction does
            not fit.
    """
    out = output_file(out)
    content = _read_images(Path(images_json))
    predictions, digest = _read_predictions(Path(predictions_json))
    category_ids = {category["id"] for category in content["categories"]}
    unknown = [p["category_id"] for p in predictions if p["category_id"] not in category_ids]
    if unknown:
        raise ValueError(
            f"{predictions_json}: category_id {unknown[0]!r} is none of the {len(category_ids)} of "
            f"{images_json}. Test with that file as the ann_file of dataset and metric"
        )
    try:
        labels, counts = choose_labels(content["images"], predictions, score)
    except ValueError as error:
        raise ValueError(f"{predictions_json}: {error}") from error
    info = {
        "description": "DAP pseudo labels",
        "score_threshold": score,
        "predictions_sha256": digest,
        "images": len(content["images"]),
        **counts,
    }
    labelled = {
        "info": info,
        "categories": content["categories"],
        "images": content["images"],
        "annotations": labels,
    }
    with whole_file(out, once=True) as file:
        file.write(json.dumps(labelled) + "\n")
    return info


def _check_numbers(number: int, prediction: Mapping[str, Any]) -> None:
    bbox = prediction["bbox"]
    values = [prediction["score"], *bbox] if isinstance(bbox, list | tuple) else []
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(values) != 5 or len(numbers) != 5 or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"prediction {number}: expected a finite score and four finite numbers as bbox, found "
            f"score {prediction['score']!r} and bbox {bbox!r}"
        )


def _clipped(bbox: Sequence[float], width: int, height: int) -> list[float]:
    """Clip an xywh box to its image."""
    x, y, w, h = bbox
    x1, y1 = max(x, 0), max(y, 0)
    return [x1, y1, min(x + w, width) - x1, min(y + h, height) - y1]


def _read_images(path: Path) -> dict[str, Any]:
    content = _parse(path, path.read_bytes(), "Make it again with tools/unlabelled_images.py")
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise ValueError(f"{path}: expected a COCO file with images and categories")
    if content.get("annotations"):
        raise ValueError(
            f"{path}: expected images without labels, found {len(content['annotations'])} "
            "annotations. Self-training must not see ground truth: list the images with "
            "tools/unlabelled_images.py, and test on that file"
        )
    needed = {"id", "width", "height"}
    for number, image in enumerate(content["images"]):
        if not isinstance(image, dict) or not needed <= image.keys():
            raise ValueError(
                f"{path}: image {number} is {str(image)[:200]}; expected id, width and height. "
                "Make the file with tools/unlabelled_images.py"
            )
    repeated = [i for i, n in Counter(image["id"] for image in content["images"]).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{path}: {len(repeated)} image ids occur twice, such as {repeated[0]!r}; expected "
            "each once. Make the file with tools/unlabelled_images.py, and test again"
        )
    return content


def _read_predictions(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Read COCO results and the sha256 of their file."""
    data = path.read_bytes()
    cure = "Was the test cut off? Remove the file and run the test again"
    content = _parse(path, data, cure)
    needed = {"image_id", "category_id", "bbox", "score"}
    is_valid = isinstance(content, list) and all(
        isinstance(item, dict) and needed <= item.keys() for item in content
    )
    if not is_valid:
        raise ValueError(
            f"{path}: expected COCO results, a list of {', '.join(sorted(needed))}, as mmdet's "
            "CocoMetric writes it to ….bbox.json"
        )
    return content, hashlib.sha256(data).hexdigest()


def _parse(path: Path, data: bytes, cure: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found {error}. {cure}") from error
