"""Write a COCO file of images without labels (DAP, self-training).

    python tools/unlabelled_images.py data/VOCdevkit/VOC2012 --split trainval --out images.json
    python tools/unlabelled_images.py my/photographs --classes classes.txt --out images.json

With --split, the folder has the layout of Pascal VOC, and its Annotations/ are not read; without
it, all images below the folder are listed. A detector predicts on the file with
`mim test mmdet CONFIG --checkpoint FILE --tta`, see configs/finetune/self_training. Existing files
are never overwritten. Images can have any format that OpenCV reads.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.datasets.voc_files import VOC_CLASSES
from dap.files import left_out_line, read_names
from dap.self_training import write_unlabelled


def main() -> None:
    """Write the file and print a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", help="folder in the layout of VOC, or folder of images")
    add("--split", help="name of a list in ImageSets/Main, for example trainval")
    add("--out", required=True, help="COCO file to write")
    add(
        "--classes",
        help="file with the detector's classes in order, one per line; default: VOC's twenty",
    )
    args = parser.parse_args()
    try:
        classes = read_names(args.classes) if args.classes else VOC_CLASSES
        summary = write_unlabelled(args.root, args.out, args.split, classes)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: images: {summary['images']}, categories: {len(classes)}, no labels")
    if summary["left_out"]:
        print(f"warning: {left_out_line(summary['left_out'])}", file=sys.stderr)


if __name__ == "__main__":
    main()
