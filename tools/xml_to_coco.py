"""Convert a tree of VOC-style XML files, such as ILSVRC DET's, to a COCO file.

    python tools/xml_to_coco.py ILSVRC/Annotations/DET/train ILSVRC/Data/DET/train --out det.json
    python tools/xml_to_coco.py VOC2007/Annotations VOC2007/JPEGImages --one-based --out voc.json

Images, of whatever kind, are found by the path of their XML file. What is broken is left out and
named with its tag and value, and so are the files of boxes that are dropped. A file that is there
is not written over.
"""

import argparse
import re
import sys

import dap  # noqa: F401  (checks versions)
from dap.datasets.voc_xml import convert_xml_tree, read_classes
from dap.files import left_out_line, read_lines


def main() -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", help="folder of XML files, in folders or not")
    parser.add_argument("images", help="folder of images, laid out alike")
    parser.add_argument("--out", required=True, help="COCO file to write")
    parser.add_argument(
        "--classes",
        help="category names in order, one per line, or those of a COCO file (.json); default: all",
    )
    parser.add_argument(
        "--list", help="XML files without .xml, one per line; a whole number after it is not read"
    )
    parser.add_argument(
        "--one-based", action="store_true", help="corners are Pascal VOC's: pixels from 1, inside"
    )
    args = parser.parse_args()
    try:
        classes = read_classes(args.classes) if args.classes else None
        lines = read_lines(args.list) if args.list else None
        stems = lines and [re.sub(r"\s+-?\d+$", "", line) for line in lines]
        done = convert_xml_tree(
            args.annotations,
            args.images,
            args.out,
            classes,
            stems=stems,
            one_based=args.one_based,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    left_out, alike = done.pop("left_out"), done.pop("alike")
    named = {"boxes dropped": done.pop("dropped"), "sizes look swapped": done.pop("swapped")}
    print(f"{args.out}: " + ", ".join(f"{count} {name}" for name, count in done.items()))
    if left_out:
        print(f"warning: {left_out_line(left_out)}", file=sys.stderr)
    for what, items in named.items():
        if items:
            print(f"warning: {left_out_line(items, what=what)}", file=sys.stderr)
    for names in alike:
        print(
            f"warning: the classes {names} differ in upper and lower case alone, and are taken for "
            "different ones",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
