"""Derive pseudo boxes for other thresholds or NMS from one run (DAP, Tables A1 and A2).

    python tools/select_boxes.py work_dirs/boxes_candidates --out work_dirs/boxes --nms-iou .6
    python tools/select_boxes.py work_dirs/boxes_candidates --out … --thresholds .2
    python tools/select_boxes.py work_dirs/boxes_candidates --out … --no-nms

SOURCE is the folder of a run without NMS (pseudo_boxes.nms_iou=None). The files are equal to those
that tools/generate_pseudo_boxes.py writes with these settings, without computing maps again. The
same command resumes an interrupted run.
"""

import argparse
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.cam import NMS_IOU
from dap.pseudo_boxes import select_boxes


def main() -> None:
    """Write the derived run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", help="folder of a finished run without NMS")
    add("--out", required=True, help="folder to write")
    add(
        "--thresholds",
        type=float,
        nargs="+",
        help="subset of the thresholds of SOURCE; default: all",
    )
    nms = parser.add_mutually_exclusive_group()
    nms.add_argument(
        "--nms-iou", type=float, default=NMS_IOU, help="IoU threshold; default: %(default)s"
    )
    nms.add_argument("--no-nms", action="store_const", const=None, dest="nms_iou", help="no NMS")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        select_boxes(args.source, args.out, args.thresholds, args.nms_iou)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
