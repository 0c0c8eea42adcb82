r"""Draw subsets with k images per class, to train with few labels (DAP, Figures 3 and 4).

    python tools/few_shot.py --voc data/VOCdevkit/VOC2007 data/VOCdevkit/VOC2012 \
        --shots 5 10 20 50 100 --seeds 0 1 2
    python tools/few_shot.py --coco data/coco/annotations/instances_train2017.json --shots 10
    python tools/few_shot.py --data data/shapes_yolo --shots 5

Each draw becomes a folder OUT/NAME_{k}shot_seed{seed}: annotations.json for CocoDataset, of VOC
also a list per folder for VOCDataset, and record.json.

How images are counted: the classes take turns, the rarest first, and each takes an image with a
usable object of it (not difficult, crowd, ignored or below one pixel) that no class has taken yet.
So a subset has k x classes images (5-shot on VOC: 100), fewer only where a class has no image left
of its own and shares one, and the 5-shot subset of a seed lies within its 10-shot subset. An image
keeps all its boxes, since objects without their boxes would be trained as background: a class is in
more images than k. record.json has both counts, drawn_for and images, and names the classes with
fewer than k.
For VOC 2007 + 2012 and COCO the command is printed that fine-tunes the DAP detector on each draw,
with as many steps as in configs/finetune; data is expected where those configs say.
Images of a VOC folder may be of any kind; a COCO file may be of any origin. Boxes that training
would leave out are counted and named in a warning.
Images that ImageSets/Main/test.txt of a VOC folder names are never drawn. If all classes of VOC
folders are among VOC's twenty, annotations.json has the twenty; a config with fewer of them sets
allow_unused=True of dap.CheckedCocoDataset.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.datasets.few_shot import make_few_shot_subsets
from dap.experiments import ConfigTree, k_shot_command


def main() -> None:
    """Write the subsets, print their folders, and how to train on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--voc", nargs="+", metavar="FOLDER", help="folders in VOC layout")
    source.add_argument("--coco", metavar="FILE", help="COCO json file")
    source.add_argument(
        "--data", metavar="DATA", help="training split of a COCO, VOC or YOLO set, also exported"
    )
    parser.add_argument("--split", default="trainval", help="VOC list to draw from: %(default)s")
    parser.add_argument("--shots", nargs="+", type=int, required=True, metavar="K")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument("--out", default="data/few_shot", help="folder to write to: %(default)s")
    parser.add_argument("--name", help="default: voc0712, coco, … by the source")
    parser.add_argument(
        "--disjoint", action="store_true", help="no image for two seeds, at the largest K"
    )
    parser.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="FILE",
        help="never draw the images named here: text files of ids or file names, or COCO files",
    )
    args = parser.parse_args()
    try:
        folders = make_few_shot_subsets(**vars(args))
        print(*folders, sep="\n")
        configs = ConfigTree()
        commands = filter(None, (k_shot_command(folder, configs) for folder in folders))
        for command in commands:
            print(command)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
