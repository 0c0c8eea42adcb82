"""Convert boxes and detection sets between formats.

    python tools/convert_annotations.py work_dirs/boxes_resnet50_in1k boxes.json
    python tools/convert_annotations.py instances.json work_dirs/boxes_instances
    python tools/convert_annotations.py data/shapes_yolo train.json
    python tools/convert_annotations.py data/shapes_voc val.json --split val

The folder of a run, or its manifest.json, is converted to a COCO file. A COCO file is converted to
such a folder, for `type='dap.PseudoBoxDataset'`; it can be any COCO file with boxes, for example of
SAM, CutLER or Grounding DINO. A folder in the layout of VOC or YOLO, also as exported by Roboflow,
CVAT and Label Studio, is converted to a COCO file. Existing files are never overwritten.
"""

import argparse
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions)
from dap.datasets.conversion import convert


def main() -> None:
    """Convert in the direction that the source determines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "source",
        help="folder of pseudo boxes, its manifest.json, a COCO file, or a VOC or YOLO folder",
    )
    add("out", help="COCO file (….json) or folder to write")
    add("--split", default="train", help="split of a detection set; default: %(default)s")
    args = parser.parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        convert(args.source, args.out, args.split)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
