"""Boxes and detection sets from one format to another.

    python tools/convert_annotations.py work_dirs/boxes_resnet50_in1k boxes.json
    python tools/convert_annotations.py instances.json work_dirs/boxes_instances
    python tools/convert_annotations.py data/shapes_yolo train.json
    python tools/convert_annotations.py data/shapes_voc val.json --split val

The folder of a run, or its manifest.json, becomes a COCO file; a COCO file becomes such a folder,
for `type='dap.PseudoBoxDataset'`. It may be any COCO file of boxes, such as one that SAM, CutLER or
Grounding DINO have made. A folder in the layout of VOC or YOLO, also as Roboflow, CVAT and Label
Studio export them, becomes a COCO file. Nothing that is there is overwritten.
"""

import argparse
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.datasets.conversion import convert


def main() -> None:
    """Convert in the direction that the source asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        help="folder of pseudo boxes, its manifest.json, a COCO file, or a VOC or YOLO folder",
    )
    parser.add_argument("out", help="COCO file (….json) or folder to write")
    parser.add_argument("--split", default="train", help="of a detection set: %(default)s")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        convert(args.source, args.out, args.split)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
