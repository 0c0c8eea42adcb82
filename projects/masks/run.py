"""Compare a Mask R-CNN from the classifier, from boxes alone, and from boxes with masks.

    uv run projects/masks/run.py [--seeds 0 1 2] [--work-dir DIR] [--size tiny]

For each seed, makes the shapes of the quick start, whose true masks are known, trains its
classifier, makes pseudo boxes with masks, pre-trains the detector on the boxes alone and on the
boxes with masks, and fine-tunes from both and from the classifier (CLS). At the end, writes
``table.md``. To continue an interrupted run, run the same command again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUICK_START = HERE.parent / "quickstart"
sys.path.insert(0, str(QUICK_START))  # for its modules

from chain import SIZES, Chain, Size, shortened  # noqa: E402
from run import project_sha256, run_chain  # noqa: E402
from steps import Step, Steps, python  # noqa: E402

import dap  # noqa: F401, E402  (lets checkpoints load)
from dap.files import locked, write_bytes  # noqa: E402

# Typical duration of each step on two cores, in seconds.
SECONDS = {
    "data": 10, "classifier": 45, "pretrain_boxes": 130, "pretrain_masks": 160,
    "boxes": 70, "masks": 70, "cls": 70, "report": 15,
}  # fmt: skip
TINY = (6, 2, 16), (24, 24, 12)
NAMES = {"cls": "CLS", "boxes": "DAP, boxes alone", "masks": "DAP, boxes with masks"}
METRICS = {
    "box AP": "coco/bbox_mAP", "box AP50": "coco/bbox_mAP_50",
    "mask AP": "coco/segm_mAP", "mask AP50": "coco/segm_mAP_50",
}  # fmt: skip
MASKS = "pseudo_boxes.masks=True"


def size_of(name: str) -> Size:
    """Sizes of data and trainings: as in the quick start."""
    size = SIZES[name]
    options = dict(size.options)
    if name == "tiny":
        short = "param_scheduler.1.milestones=[10]", "train_cfg.val_interval=12"
        options["finetune"] = shortened(12, 4, *short)
    return size._replace(options=options, seconds=SECONDS)


class MaskChain(Chain):
    """The steps of one seed."""

    def stages(self, control: bool = False) -> list[list[Step]]:
        """Return all steps, in stages."""
        data = Step(
            "data", "make the two data sets",
            python(QUICK_START / "shapes.py", self.seed, *self.size.data), "data",
        )  # fmt: skip
        classifier = self._training(
            "classifier", "Steps 1 and 2: a classifier, and pseudo boxes with masks",
            "classifier.py", MASKS, *self.size.options.get("classifier", ()),
        )  # fmt: skip
        report = Step(
            "report", "quality of the pseudo boxes and masks", python(HERE / "quality.py"), "report"
        )
        return [
            [data],
            [classifier],
            [self._pretrained("boxes"), self._pretrained("masks")],
            [self._finetuned("cls"), self._finetuned("boxes"), self._finetuned("masks")],
            [report],
        ]

    def _pretrained(self, name: str) -> Step:
        with_masks = HERE / "configs" / "pretrain_masks.py"
        return self._training(
            f"pretrain_{name}", f"Step 3: pre-train the detector ({name})",
            "pretrain_detector.py" if name == "boxes" else str(with_masks),
            *self._start("backbone.init_cfg", "classifier", self.size.lengths[0]),
            *self.size.options.get("pretrain", ()),
        )._replace(threads=1)  # fmt: skip

    def _finetuned(self, name: str) -> Step:
        if name == "cls":
            start = self._start("backbone.init_cfg", "classifier", self.size.lengths[0])
        else:
            start = self._start("init_cfg", f"pretrain_{name}", self.size.lengths[1])
        if name == "boxes":
            start += ("model.init_cfg.allow_missing=roi_head.mask_head",)
        config = HERE / "configs" / f"finetune_{'cls' if name == 'cls' else 'dap'}.py"
        return self._training(
            name, f"Step 4: fine-tune ({NAMES[name]})", str(config),
            *start, *self.size.options.get("finetune", ()),
        )  # fmt: skip


def results_of(folder: Path) -> dict[str, dict[str, float]]:
    """The figures of a seed: of each fine-tuning, and the quality of its boxes and masks."""
    from dap.comparison import read_curve

    curves = {name: read_curve(folder / "work_dirs" / name, METRICS) for name in NAMES}
    quality = json.loads((folder / "report" / "quality.json").read_text())
    return {**{name: figures(curve) for name, curve in curves.items()}, "quality": quality}


def figures(curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the columns of the table: AP at each validation, AP50 at the end."""
    by_iteration = {
        f"{metric} at {row['iteration']:.0f}": row[metric]
        for metric in ("box AP", "mask AP")
        for row in curve
    }
    return by_iteration | {metric: curve[-1][metric] for metric in ("box AP50", "mask AP50")}


def table(results: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Format mean and standard deviation over the seeds as a Markdown table."""
    columns = list(results[0]["cls"])
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, title in NAMES.items():
        cells = [_spread([seed[name][column] for seed in results]) for column in columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for name, base in (("boxes", "cls"), ("masks", "cls"), ("masks", "boxes")):
        cells = [_spread([seed[name][c] - seed[base][c] for seed in results], "+") for c in columns]
        lines.append(f"| {NAMES[name]}, minus {NAMES[base]} | " + " | ".join(cells) + " |")
    quality = [
        f"{title} {_spread([100 * seed['quality'][title] for seed in results])}"
        for title in results[0]["quality"]
    ]
    return "\n".join([*lines, "", f"Pseudo boxes, in percent: {'; '.join(quality)}.", ""])


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    mean = round(statistics.mean(values), 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{mean:{sign}.1f}{deviation}"


def version() -> str:
    """Return the hash of the configs and scripts of both projects that affect the results."""
    contents = b"".join(
        path.read_bytes() for path in sorted(HERE.rglob("*.py")) if path.name != "run.py"
    )
    return hashlib.sha256(project_sha256().encode() + contents).hexdigest()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="full",
        help="tiny: only shows that all steps run; its results are meaningless",
    )  # fmt: skip
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/masks"))
    return parser.parse_args()


def main() -> None:
    """Run the chain of each seed, and write the table."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also ends the steps
    results: list[dict[str, Any]] = []
    folder = args.work_dir.resolve() / args.size
    try:
        for seed in args.seeds:
            seed_folder = folder / f"seed{seed}"
            with locked(seed_folder / "run.lock"):
                chain, steps = MaskChain(seed, size_of(args.size)), Steps(seed_folder, version())
                print(f"seed {seed}", flush=True)
                seconds = run_chain(chain, steps, False, None)
            print(f"seed {seed}: {seconds / 60:.1f} minutes", flush=True)
            results.append(results_of(seed_folder))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; run the same command again to continue ({folder})")
    write_bytes(folder / "table.md", table(results).encode())
    write_bytes(folder / "results.json", json.dumps(results, indent=1).encode())
    print(f"\n{table(results)}\n{folder / 'table.md'}")


if __name__ == "__main__":
    main()
