"""List images without their labels in a COCO file (DAP, self-training).

    python tools/unlabelled_images.py data/VOCdevkit/VOC2012 --split trainval --out images.json
    python tools/unlabelled_images.py my/photographs --classes classes.txt --out images.json

With --split the folder is laid out like Pascal VOC, of which Annotations/ is never opened;
without it, all images below the folder are taken. A detector predicts on the file with
`mim test mmdet CONFIG --checkpoint FILE --tta`, see configs/finetune/self_training. A file that is
there is not written over. Images may be of any kind that OpenCV reads.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.datasets.voc_files import VOC_CLASSES
from dap.files import left_out_line, read_names
from dap.self_training import write_unlabelled


def main() -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of VOC's layout, or of images")
    parser.add_argument("--split", help="name of a list in ImageSets/Main, such as trainval")
    parser.add_argument("--out", required=True, help="COCO file to write")
    parser.add_argument(
        "--classes", help="the detector's classes in its order, one per line; default: VOC's twenty"
    )
    args = parser.parse_args()
    try:
        classes = read_names(args.classes) if args.classes else VOC_CLASSES
        done = write_unlabelled(args.root, args.out, args.split, classes)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {done['images']} images, {len(classes)} categories, no labels")
    if done["left_out"]:
        print(f"warning: {left_out_line(done['left_out'])}", file=sys.stderr)


if __name__ == "__main__":
    main()
