"""Evaluate pseudo boxes where ground truth exists.

    python tools/evaluate_boxes.py work_dirs/boxes_val ILSVRC2012_bbox_val_v3
    python tools/evaluate_boxes.py work_dirs/boxes LOC_val_solution.csv --json quality.json
    python tools/evaluate_boxes.py work_dirs/boxes_coco instances_val2017.json --class-agnostic
    python tools/evaluate_boxes.py work_dirs/boxes … --maps configs/….py classifier.pth

STORE is the folder of a run; TRUTH is COCO json, a folder of VOC-style XML files, Kaggle's
LOC_val_solution.csv or wsolevaluation's localization.txt, of the same images, which are matched by
name. With --maps the maps of these images are computed again, for MaxBoxAcc and MaxBoxAccV2 and,
where each object has a mask in the COCO json, PxAP. Masks of a store are judged by such masks too.
"""

import argparse
import json
import os
import sys

# Large pages for feature maps on a CPU, a tenth sooner; torch looks once, at its first allocation.
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
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder of a finished run")
    parser.add_argument("truth", help="file or folder with the ground truth")
    parser.add_argument("--maps", nargs=2, metavar=("CONFIG", "CHECKPOINT"), help="of the run")
    parser.add_argument("--images", help="folder of the images; default: that of the run")
    parser.add_argument("--device", help="cuda, cpu, …; default: cuda if there is any")
    parser.add_argument("--json", help="file for all figures, per class too")
    parser.add_argument("--class-agnostic", action="store_true", help="any class is right")
    parser.add_argument("--one-based", action="store_true", help="XML corners are Pascal VOC's")
    parser.add_argument("--worst", type=int, default=10, help="classes to list; default: 10")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, help="changes of CONFIG, as key=value"
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
