r"""Write the configs of Steps 3 and 4 for a detector of MMDetection or for your own config.

    python tools/new_config.py rtmdet_tiny_8xb32-300e_coco work_dirs/boxes --finetune data/shapes
    python tools/new_config.py mask-rcnn_r50_fpn_1x_coco boxes.json --images photographs
    python tools/new_config.py rtmdet_s_8xb32-300e_coco work_dirs/boxes --finetune data/cars.json \
        --val data/cars_val.json --backbone timm:convnext_tiny --weights convnext_tiny.safetensors

DETECTOR is the name of a config of MMDetection, or a config file. BOXES is a folder written by
tools/generate_pseudo_boxes.py, or a COCO file of boxes. DATA is a COCO file, a VOC folder or a YOLO
folder, also as exported by Roboflow, CVAT and Label Studio; VOC and YOLO folders are converted to a
COCO file next to the configs. The tool writes OUT/pretrain_NAME.py and, with --finetune,
OUT/finetune_NAME_cls.py and OUT/finetune_NAME_dap.py, which differ only in the initialisation;
OUT/base_NAME.py is their common base.
The configs inherit from the detector's config and are short, so that they can be edited. The tool
builds all of them and reports which weights will be transferred. Existing files with other content
are never overwritten.
"""

import argparse
import shlex
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.new_config import new_configs
from dap.transfer.report import shorten


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("detector", help="name of a config of MMDetection, or a config file")
    add("boxes", help="store of pseudo boxes, or a COCO file")
    add("--finetune", metavar="DATA", help="detection set to fine-tune on")
    add("--val", metavar="DATA", help="validation set; default: val or test, or a fifth, of DATA")
    add("--out", default="my_configs", help="folder of the configs: %(default)s")
    add("--images", help="folder of the images of BOXES, if BOXES does not state it")
    add("--finetune-images", help="folder of the images of DATA, if not beside the COCO file")
    add("--backbone", metavar="timm:NAME", help="backbone to use instead of the detector's")
    add("--weights", metavar="FILE", help="classifier's weights, instead of those in the config")
    add("--iterations", type=int, help="of the pre-training; default: one epoch, at least 2000")
    add("--finetune-iterations", type=int, help="default: 12 epochs, at least 2000")
    add("--batch-size", type=int, help="images per GPU; default: that of the detector's config")
    add("--work-dirs", default="work_dirs", help="folder of the work directories: %(default)s")
    add("--name", help="name of the configs; default: that of the detector")
    return parser.parse_args()


def main() -> None:
    """Write the configs and report which weights will be transferred."""
    args = parse_args()
    try:
        MMLogger.get_instance("dap", logger_name="dap")
        recipe = new_configs(**vars(args))
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")
    for path in (recipe.pretrain, *recipe.finetune):
        print(path)
    for note in recipe.notes:
        print(f"- {note}")
    if report := recipe.report:
        print(f"\nweights that will be transferred from {report.checkpoint}:\n{report.table()}")
        print(f"new, because they depend on the categories: {shorten(report.category_dependent)}")
        if report.missing:
            print(f"new, because the pre-training has none: {shorten(report.missing)}")
    print(f"\nnext: {shlex.join(['dap', 'pretrain', str(recipe.pretrain)])}")


if __name__ == "__main__":
    main()
