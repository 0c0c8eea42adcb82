r"""Write the configs of Steps 3 and 4 for a detector of MMDetection, or one of your own.

    python tools/new_config.py rtmdet_tiny_8xb32-300e_coco work_dirs/boxes --finetune data/shapes
    python tools/new_config.py mask-rcnn_r50_fpn_1x_coco boxes.json --images photographs
    python tools/new_config.py rtmdet_s_8xb32-300e_coco work_dirs/boxes --finetune data/cars.json \
        --val data/cars_val.json --backbone timm:convnext_tiny --weights convnext_tiny.safetensors

DETECTOR is a config of MMDetection by its name, or a config file. BOXES is a folder that
tools/generate_pseudo_boxes.py has written, or a COCO file of boxes. DATA is a COCO file, a VOC
folder or a YOLO folder, also as Roboflow, CVAT and Label Studio export them; what is no COCO file
becomes one beside the configs. Written are OUT/pretrain_NAME.py and, with --finetune,
OUT/finetune_NAME_cls.py and OUT/finetune_NAME_dap.py, which differ in the initialisation alone;
OUT/base_NAME.py has what they share.
They inherit the detector's recipe and are short, to be read and edited. All are built, and what
will move is said. A file that is there with other content stays as it is.
"""

import argparse
import shlex
import sys

from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.new_config import new_configs
from dap.transfer.report import shorten


def main() -> None:
    """Write the configs and say what they do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("detector", help="name of a config of MMDetection, or a config file")
    add("boxes", help="store of pseudo boxes, or a COCO file")
    add("--finetune", metavar="DATA", help="detection set to fine-tune on")
    add("--val", metavar="DATA", help="to validate on; default: its split val or test, or a fifth")
    add("--out", default="my_configs", help="folder of the configs: %(default)s")
    add("--images", help="folder of the images of BOXES, if it is not known")
    add("--finetune-images", help="folder of the images of DATA, if it is a COCO file elsewhere")
    add("--backbone", metavar="timm:NAME", help="in place of the detector's own")
    add("--weights", metavar="FILE", help="of the classifier, in place of the recipe's")
    add("--iterations", type=int, help="of the pre-training; default: one pass, at least 2000")
    add("--finetune-iterations", type=int, help="default: 12 passes, at least 2000")
    add("--batch-size", type=int, help="images per GPU; default: the recipe's")
    add("--work-dirs", default="work_dirs", help="folder of the work directories: %(default)s")
    add("--name", help="of the configs; default: the detector's")
    args = parser.parse_args()
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
        print(f"\nwhat will move from {report.checkpoint}:\n{report.table()}")
        print(f"new, because they depend on the categories: {shorten(report.category_dependent)}")
        if report.missing:
            print(f"new, because the pre-training has none: {shorten(report.missing)}")
    print(f"\nnext: {shlex.join(['dap', 'pretrain', str(recipe.pretrain)])}")


if __name__ == "__main__":
    main()
