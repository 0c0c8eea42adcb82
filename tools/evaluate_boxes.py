"""Evaluate pseudo boxes with ground truth.

    python tools/evaluate_boxes.py work_dirs/boxes_val ILSVRC2012_bbox_val_v3
    python tools/evaluate_boxes.py work_dirs/boxes LOC_val_solution.csv --json quality.json
    python tools/evaluate_boxes.py work_dirs/boxes_coco instances_val2017.json --class-agnostic
    python tools/evaluate_boxes.py work_dirs/boxes … --maps configs/….py classifier.pth

STORE is the folder of a run. TRUTH is COCO json, a folder of VOC-style XML files, Kaggle's
LOC_val_solution.csv or wsolevaluation's localization.txt, for the same images, which are matched by
name. With --maps, the maps of these images are computed again to report MaxBoxAcc, MaxBoxAccV2 and,
if all objects have masks in the COCO json, PxAP. The masks
of a store are evaluated with these as well.
"""

import argparse
import json
import os
import sys

# Large pages make the CPU 10 % faster. torch reads this once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from mmengine.config import DictAction
from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.classifiers.libraries import classifier_config
from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.quality_table import quality_table
from dap.files import output_file, whole_file
from dap.pseudo_boxes import PseudoBoxStore
from dap.pseudo_boxes.stored_maps import StoredMaps


def main() -> None:
    """Print the table and write the metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("store", help="folder of a finished run")
    add("truth", help="file or folder with the ground truth")
    add("--maps", nargs=2, metavar=("CONFIG", "CHECKPOINT"), help="classifier of the run")
    add("--images", help="folder of the images; default: that of the run")
    add("--device", help="cuda, cpu, …; default: cuda if available")
    add("--json", help="file to write all metrics to, also per class")
    add("--class-agnostic", action="store_true", help="ignore the classes of boxes")
    add("--one-based", action="store_true", help="XML corners are 1-based, as in Pascal VOC")
    add("--worst", type=int, default=10, help="number of worst classes to list; default: 10")
    add(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help="settings to override in CONFIG, as key=value",
    )
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        out = output_file(args.json) if args.json else None
        store, score_maps = PseudoBoxStore(args.store), None
        if args.maps:
            config = classifier_config(*args.maps)
            config.merge_from_dict(args.cfg_options or {})
            maps = StoredMaps.from_config(store, config, args.maps[1], args.images, args.device)
            score_maps = maps.score_maps
        result = evaluate_boxes(
            store,
            read_ground_truth(args.truth, args.one_based, store.has_masks or bool(args.maps)),
            score_maps,
            class_agnostic=args.class_agnostic,
            worst=args.worst,
            progress=True,
        )
        print(quality_table(result))
        if out:
            with whole_file(out) as file:
                json.dump(result, file, indent=1)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
