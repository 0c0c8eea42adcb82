"""Compare trainings by MMEngine's logs: table, curves, head start (DAP, Table 1, Figures 3 to 5).

    python tools/compare.py work_dirs/cls_seed0 work_dirs/cls_seed1 work_dirs/dap_seed0 …
    python tools/compare.py "CLS=work_dirs/cls_seed*" "DAP=work_dirs/dap_seed*" --out comparison
    python tools/compare.py work_dirs/*shot* --metrics AP50

Runs that differ only in their seed form a group, reported as mean ± standard deviation. Groups are
named after their folders, or by NAME=. The other groups are compared with the first one, or with
--reference: Δ rows, a description of the head start, and warnings if groups differ in more than
initialisation, with the difference of their configs. Runs on k-shot sets (tools/few_shot.py) are
compared at the same k.
The tool writes report.md, which is also printed, table.md, table.tex, table.csv, curves.png and
curves.svg to OUT, and kshot.png and kshot.svg if there are several k. The values are those of the
last validation, or of the last test if a run has no validation.
"""

import argparse
import sys

import dap  # noqa: F401  (checks versions)
from dap.comparison import compare


def main() -> None:
    """Write the comparison and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="DIR | NAME=DIR,DIR…", help="work directories")
    add("--out", default="comparison", help="folder to write: %(default)s")
    add("--reference", metavar="NAME", help="group to compare with; default: the first")
    add(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="for example AP50 or coco/bbox_mAP_50; default: all metrics of boxes",
    )
    add("--best", metavar="NAME", help="use the validation with the best value of this metric")
    add(
        "--at", nargs="+", type=int, default=[], metavar="ITERATION",
        help="iterations at which to report the head start; default: the first validation"
    )  # fmt: skip
    args = parser.parse_args()
    try:
        print(compare(**vars(args)))
        print(f"\nwritten to {args.out}: report.md, table.*, and the curves as PNG and SVG")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
