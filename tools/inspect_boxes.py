"""Look at the boxes of a run before a detector is trained on them.

    python tools/inspect_boxes.py work_dirs/boxes
    python tools/inspect_boxes.py work_dirs/boxes --maps CONFIG CHECKPOINT --truth val.json

Writes a page, index.html, which opens from the disk, and its pictures as PNG: galleries, the
paper's Tables A1 and A2 for this run, distributions, and what failed. With the classifier that
made the boxes, activation maps are computed again for the images that are shown.
"""

import argparse
import os
import sys
from pathlib import Path

# Large pages for feature maps on a CPU, a tenth sooner; torch looks once, at its first allocation.
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
    parser.add_argument("store", help="folder that tools/generate_pseudo_boxes.py has written")
    parser.add_argument("--out", help="folder to write; default: inspection in the store")
    parser.add_argument(
        "--maps", nargs=2, metavar=("CONFIG", "CHECKPOINT"), help="classifier that made the boxes"
    )
    parser.add_argument(
        "--truth", help="true boxes of the same images: COCO json, XML folder, ImageNet's text"
    )
    parser.add_argument("--class-agnostic", action="store_true", help="any class is right")
    parser.add_argument("--one-based", action="store_true", help="XML corners are Pascal VOC's")
    parser.add_argument("--images", help="folder of the images, if they have moved")
    parser.add_argument("--count", type=int, default=24, help="images per gallery")
    parser.add_argument("--seed", type=int, default=0, help="which images are random")
    parser.add_argument("--device", help="cuda, cpu, …; default: cuda if there is any")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="changes of CONFIG, as key=value"
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
