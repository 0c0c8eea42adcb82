"""A detection set of natural photographs, and the photographs that are left for pre-training.

    python projects/real_mini/sample_target.py data/imagenet/train data/objects

The 125 photographs of ``sample_boxes.json``, whose boxes are drawn by hand, become a set with one
class, ``object``: 50 to train on, 75 to evaluate on. ::

    data/objects/
    ├── train.json, test.json    COCO; files are relative to the folder of the photographs
    └── photographs/             links to all others, in class folders: no class is in both

Then: ``run.py --images data/objects/photographs --coco data/objects/train.json
data/objects/test.json --folders data/imagenet/train data/imagenet/train``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dap.files import whole_file

TRUTH = Path(__file__).resolve().parent / "sample_boxes.json"
TRAINING_IMAGES = 50


def split(truth: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Split a COCO file in two, all its categories made one.

    Args:
        truth: Content of the file; it is not changed.
        seed: Of the choice of the ``TRAINING_IMAGES`` images of the first part.

    Returns:
        Content of the two files.
    """
    order = np.random.default_rng(seed).permutation([image["id"] for image in truth["images"]])
    chosen = set(order[:TRAINING_IMAGES].tolist())
    parts = []
    for first in (True, False):
        images = [image for image in truth["images"] if (image["id"] in chosen) == first]
        there = {image["id"] for image in images}
        boxes = [{**a, "category_id": 1} for a in truth["annotations"] if a["image_id"] in there]
        categories = [{"id": 1, "name": "object"}]
        parts.append({"categories": categories, "images": images, "annotations": boxes})
    return parts


def link_others(images: Path, out: Path, taken: set[str]) -> int:
    """Link the class folders that hold none of the taken images; return how many there are.

    Raises:
        FileNotFoundError: If a taken image is not there.
    """
    for name in sorted(taken):
        if not (images / name).is_file():
            raise FileNotFoundError(
                f"{images / name}: no such file; expected the public sample of 1000 photographs, "
                "one per class, in folders named by WordNet id"
            )
    folders = sorted(path for path in images.iterdir() if path.is_dir())
    others = [
        path for path in folders if path.name not in {Path(name).parent.name for name in taken}
    ]
    out.mkdir(parents=True)
    for path in others:
        os.symlink(path.resolve(), out / path.name)
    return len(others)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of class folders")
    parser.add_argument("out", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the split; default: 0")
    args = parser.parse_args()
    try:
        truth = json.loads(TRUTH.read_text(encoding="utf-8"))
        taken = {image["file_name"] for image in truth["images"]}
        count = link_others(args.images, args.out / "photographs", taken)
        for name, part in zip(("train", "test"), split(truth, args.seed), strict=True):
            with whole_file(args.out / f"{name}.json") as file:
                json.dump(part, file)
            print(f"{name}.json: {len(part['images'])} images, {len(part['annotations'])} boxes")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"photographs: {count} class folders")


if __name__ == "__main__":
    main()
