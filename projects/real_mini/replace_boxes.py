"""Other boxes in place of the pseudo boxes, for Step 3: three controls and a choice.

    python replace_boxes.py work_dirs/boxes centre work_dirs/centre.json

Writes the annotations of a run of pseudo boxes with other boxes in their place:

- ``whole``: one box, the whole image;
- ``centre``: one box in the middle, .71 of the width and of the height, half of the area;
- ``foreign``: the boxes of another image, drawn without replacement, at the same place in
  fractions of width and height: their number, sizes and places are right, but not for this image;
- ``largest``: of the pseudo boxes of an image, the largest alone.

The first three owe nothing to the map of the image they are put in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dap.files import whole_file

CENTRE_SIDE = 0.5**0.5
KINDS = ("whole", "centre", "foreign", "largest")


def replace_boxes(annotations: dict[str, Any], kind: str, seed: int = 0) -> dict[str, Any]:
    """Replace the boxes of a COCO file of images with one class each.

    Args:
        annotations: Content of the file; it is not changed.
        kind: One of ``KINDS``.
        seed: Of ``foreign``: images that have boxes swap theirs in a circle of random order.

    Returns:
        Content of the new file. Images without a box stay without.

    Raises:
        ValueError: If ``kind`` is unknown, or there is no annotation.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, found {kind!r}")
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations["images"]}
    by_image = defaultdict(list)
    for annotation in annotations["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    if not by_image:
        raise ValueError("annotations: found no box; expected the file of a run of pseudo boxes")
    fractions = {
        image: [_in_fractions(box["bbox"], sizes[image]) for box in own]
        for image, own in by_image.items()
    }
    if kind == "foreign":
        circle = np.random.default_rng(seed).permutation(sorted(by_image)).tolist()
        givers = zip(circle, circle[1:] + circle[:1], strict=True)
        fractions = {image: fractions[giver] for image, giver in givers}
    elif kind == "largest":
        fractions = {
            image: [_in_fractions(max(own, key=lambda box: box["area"])["bbox"], sizes[image])]
            for image, own in by_image.items()
        }
    else:
        side = 1.0 if kind == "whole" else CENTRE_SIDE
        box = ((1 - side) / 2, (1 - side) / 2, side, side)
        fractions = {image: [box] for image in by_image}
    boxes: list[dict[str, Any]] = []
    for image, own in sorted(by_image.items()):
        width, height = sizes[image]
        for x, y, w, h in fractions[image]:
            box = [round(v, 2) for v in (x * width, y * height, w * width, h * height)]
            boxes.append({
                "id": len(boxes) + 1, "image_id": image, "category_id": own[0]["category_id"],
                "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0,
            })  # fmt: skip
    return {**annotations, "annotations": boxes}


def _in_fractions(box: list[float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size_wh
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="folder of a finished run of pseudo boxes")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path, help="COCO file to write")
    args = parser.parse_args()
    try:
        annotations = json.loads((args.store / "annotations.json").read_text())
        made = replace_boxes(annotations, args.kind)
        with whole_file(args.out) as file:
            json.dump(made, file)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {len(made['annotations'])} boxes")


if __name__ == "__main__":
    main()
