"""Pseudo boxes as a COCO file for other tools, and any COCO file of boxes for fast training.

    python tools/convert_annotations.py work_dirs/boxes_resnet50_in1k boxes.json
    python tools/convert_annotations.py instances.json work_dirs/boxes_instances

The folder of a run, or its manifest.json, becomes a COCO file; a COCO file becomes such a folder,
for `type='dap.PseudoBoxDataset'`. It may be any COCO file of boxes, such as one that SAM, CutLER or
Grounding DINO have made. Nothing that is there is overwritten.
"""

import argparse
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.pseudo_boxes.convert import convert_annotations


def main() -> None:
    """Convert in the direction that the source asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="folder of pseudo boxes, its manifest.json, or a COCO file")
    parser.add_argument("out", help="COCO file (….json) or folder to write")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        convert_annotations(args.source, args.out)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
