r"""Draw subsets with k images per class for training with few labels (DAP, Figures 3 and 4).

    python tools/few_shot.py --voc data/VOCdevkit/VOC2007 data/VOCdevkit/VOC2012 \
        --shots 5 10 20 50 100 --seeds 0 1 2
    python tools/few_shot.py --coco data/coco/annotations/instances_train2017.json --shots 10
    python tools/few_shot.py --data data/shapes_yolo --shots 5

Each subset is written to a folder OUT/NAME_{k}shot_seed{seed}: annotations.json for CocoDataset, a
list per VOC folder for VOCDataset, and record.json.

In each of k rounds, one image is drawn per class, the rarest class first, among the images that
have a usable object of the class (not difficult, crowd, ignored or below one pixel) and have not
been drawn yet. A subset has k x classes images (5-shot on VOC: 100), fewer only if a class has no
such image left and shares one, and the 5-shot subset of a seed is contained in its 10-shot subset.
All boxes of an image are kept, because objects without boxes would be trained as background, so
that a class can occur in more than k images. record.json has both counts, drawn_for and images, and
names the classes with fewer than k.
For VOC 2007 + 2012 and COCO, the tool prints the command that fine-tunes the DAP detector on each
subset, with the number of steps in configs/finetune; data is expected in the folders of those
configs.
Images of a VOC folder can have any format; a COCO file can have any origin. Boxes that training
would leave out are counted and named in a warning.
Images in ImageSets/Main/test.txt of a VOC folder are never drawn. If all classes of VOC folders are
among VOC's twenty, annotations.json has all twenty; a config with fewer of them sets
allow_unused=True of dap.CheckedCocoDataset.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.experiments import ConfigTree, k_shot_command
from dap.few_shot import make_few_shot_subsets


def main() -> None:
    """Write the subsets, print their folders, and how to train on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--voc", nargs="+", metavar="FOLDER", help="folders in VOC layout")
    source.add_argument("--coco", metavar="FILE", help="COCO json file")
    source.add_argument(
        "--data",
        metavar="DATA",
        help="COCO, VOC or YOLO set, also exported; uses its training split",
    )
    add("--split", default="trainval", help="VOC list to draw from: %(default)s")
    add("--shots", nargs="+", type=int, required=True, metavar="K")
    add("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    add("--out", default="data/few_shot", help="folder to write to: %(default)s")
    add("--name", help="prefix of the folders; default: voc0712, coco, … by the source")
    add("--disjoint", action="store_true", help="draw no image for two seeds, at the largest K")
    add(
        "--exclude",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files with images never to draw: text files of ids or file names, or COCO files",
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
