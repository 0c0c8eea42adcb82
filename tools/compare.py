"""Compare trainings by MMEngine's logs: table, head start, curves (DAP, Table 1, Figures 3 to 5).

    python tools/compare.py work_dirs/cls_seed0 work_dirs/cls_seed1 work_dirs/dap_seed0 …
    python tools/compare.py "CLS=work_dirs/cls_seed*" "DAP=work_dirs/dap_seed*" --out comparison
    python tools/compare.py work_dirs/*shot* --metrics AP50

Runs that differ in their seed alone are one group: mean ± standard deviation. Groups are named by
their folders, or by you. Others are compared with the first, or with --reference: Δ rows, the head
start in words, and warnings where they differ in more than initialisation, with the difference of
their configs. Runs on k-shot sets (tools/few_shot.py) are compared at the same k.
OUT gets report.md, which is also printed, table.md, table.tex, table.csv, curves.png, curves.svg,
and kshot.png, kshot.svg where there are several k. The figures are those of the last validation, or
of the last test where a run has none.
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
    parser.add_argument("runs", nargs="+", metavar="DIR | NAME=DIR,DIR…", help="work directories")
    parser.add_argument("--out", default="comparison", help="folder to write: %(default)s")
    parser.add_argument("--reference", metavar="NAME", help="group to compare with; default: first")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="AP50 or coco/bbox_mAP_50; default: all of boxes",
    )
    parser.add_argument("--best", metavar="NAME", help="judge runs by the best validation of this")
    parser.add_argument(
        "--at", nargs="+", type=int, default=[], metavar="ITERATION",
        help="where to state the head start; default: the first validation",
    )  # fmt: skip
    args = parser.parse_args()
    try:
        print(compare(**vars(args)))
        print(f"\nwritten to {args.out}: report.md, table.*, and the curves as PNG and SVG")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
