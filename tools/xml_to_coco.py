"""Convert a tree of VOC-style XML files, such as ILSVRC DET's, to a COCO file.

    python tools/xml_to_coco.py ILSVRC/Annotations/DET/train ILSVRC/Data/DET/train --out det.json
    python tools/xml_to_coco.py VOC2007/Annotations VOC2007/JPEGImages --one-based --out voc.json

Images, in any format, are found by the path of their XML file. Invalid files are left out and
reported with the invalid tag and value; files with dropped boxes are reported as well. Existing
files are never overwritten.
"""

import argparse
import re
import sys

import dap  # noqa: F401  (checks versions)
from dap.datasets.voc_xml import convert_xml_tree, read_classes
from dap.files import left_out_line, read_lines


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("annotations", help="folder of XML files, also in subfolders")
    add("images", help="folder of images, with the same subfolders")
    add("--out", required=True, help="COCO file to write")
    add("--classes", help="category names in order, one per line, or COCO file (.json)")
    add("--list", help="XML files without .xml, one per line; a number after a name is ignored")
    add("--one-based", action="store_true", help="XML corners are 1-based, as in Pascal VOC")
    return parser.parse_args()


def main() -> None:
    """Write the file and print a summary."""
    args = parse_args()
    try:
        classes = read_classes(args.classes) if args.classes else None
        lines = read_lines(args.list) if args.list else None
        stems = lines and [re.sub(r"\s+-?\d+$", "", line) for line in lines]
        summary = convert_xml_tree(
            args.annotations, args.images, args.out, classes, stems=stems, one_based=args.one_based
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    warnings = {
        "files left out": summary.pop("left_out"),
        "boxes dropped": summary.pop("dropped"),
        "sizes look swapped": summary.pop("swapped"),
    }
    similar_names = summary.pop("alike")
    print(f"{args.out}: " + ", ".join(f"{count} {name}" for name, count in summary.items()))
    for what, items in warnings.items():
        if items:
            print(f"warning: {left_out_line(items, what=what)}", file=sys.stderr)
    for names in similar_names:
        print(
            f"warning: the classes {names} differ only in upper and lower case, and are treated as "
            "different classes",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
