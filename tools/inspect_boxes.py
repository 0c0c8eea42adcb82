"""Write a page to inspect the boxes of a run before a detector is trained on them.

    python tools/inspect_boxes.py work_dirs/boxes
    python tools/inspect_boxes.py work_dirs/boxes --maps CONFIG CHECKPOINT --truth val.json

Writes index.html and its pictures as PNG files: galleries, the paper's Tables A1 and A2 for this
run, distributions, and failed images. With --maps, the classifier that generated the boxes computes
the activation maps of the images in the galleries again.
"""

import argparse
import os
import sys
from pathlib import Path

# Large pages make the CPU 10 % faster. torch reads this once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from mmengine.config import DictAction

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.classifiers.libraries import classifier_config
from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes import PseudoBoxStore
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.visualization.inspection import inspect_boxes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("store", help="folder written by tools/generate_pseudo_boxes.py")
    add("--out", help="folder to write; default: inspection in the store")
    add(
        "--maps",
        nargs=2,
        metavar=("CONFIG", "CHECKPOINT"),
        help="classifier that generated the boxes",
    )
    add("--truth", help="true boxes of the same images: COCO json, XML folder, ImageNet's text")
    add("--class-agnostic", action="store_true", help="ignore the classes of boxes")
    add("--one-based", action="store_true", help="XML corners are 1-based, as in Pascal VOC")
    add("--images", help="folder of the images, if they were moved")
    add("--count", type=int, default=24, help="images per gallery")
    add("--seed", type=int, default=0, help="seed of the random images")
    add("--device", help="cuda, cpu, …; default: cuda if available")
    add(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help="settings to override in CONFIG, as key=value",
    )
    return parser.parse_args()


def main() -> None:
    """Write the page."""
    args = parse_args()
    try:
        store, maps = PseudoBoxStore(args.store), None
        if args.maps:
            config = classifier_config(*args.maps)
            config.merge_from_dict(args.cfg_options or {})
            maps = StoredMaps.from_config(store, config, args.maps[1], args.images, args.device)
        truth = quality = None
        if args.truth:
            truth = read_ground_truth(args.truth, args.one_based)
            quality = evaluate_boxes(store, truth, class_agnostic=args.class_agnostic)
        out = args.out or Path(store.folder) / "inspection"
        page = inspect_boxes(
            store, out, maps, args.images, truth, quality, count=args.count, seed=args.seed
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{page}: open it in a browser")


if __name__ == "__main__":
    main()
