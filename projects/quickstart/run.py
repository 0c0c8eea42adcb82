"""The quick start: DAP and classification pre-training on synthetic shapes, on two CPU cores.

    uv run projects/quickstart/run.py [--seed 0] [--work-dir DIR] [--control] [--size tiny]

Makes the data, runs the four steps of the paper with the usual tools and configs, fine-tunes from
the classifier (CLS) on the same few images, and writes a report. To continue an interrupted run,
run the same command again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CONFIGS = HERE / "configs"
sys.path.insert(0, str(HERE))  # for the modules beside this one

from clock import Clock  # noqa: E402
from steps import Step, Steps, python  # noqa: E402

from dap.files import locked  # noqa: E402

TRUE_BOXES = (  # a COCO file in place of the pseudo boxes
    "train_dataloader.dataset.type=dap.CheckedCocoDataset",
    "train_dataloader.dataset.ann_file=data/true_boxes.json",
    "train_dataloader.dataset.metainfo.classes=()",  # all categories of the file
)
TRAINING_SHARE = 0.8  # share of the training in the time of Steps 1 and 2
ECHOED = ("Iter(train)", "bbox_mAP_copypaste", "pseudo boxes:")


class Size(NamedTuple):
    """Sizes of data and trainings.

    Attributes:
        data: Images per class of the classification set, training images per class and test
            images of the detection set.
        lengths: Iterations of classifier, pre-training and fine-tuning.
        options: Config options of each of the three trainings.
        seconds: Typical duration of each step on two cores, in seconds, to estimate the
            remaining time.
    """

    data: tuple[int, int, int]
    lengths: tuple[int, int, int]
    options: Mapping[str, tuple[str, ...]]
    seconds: Mapping[str, float]


def shortened(iterations: int, warm_up: int, *more: str) -> tuple[str, ...]:
    """Return config options that shorten a training for a test of all steps."""
    return (
        f"train_cfg.max_iters={iterations}",
        f"default_hooks.checkpoint.interval={iterations}",
        "default_hooks.logger.interval=4",
        f"param_scheduler.0.end={warm_up}",
        *more,
    )


SIZES = {
    "full": Size(
        (100, 3, 160), (400, 600, 120), {},
        {"data": 8, "classifier": 40, "pretrain_dap": 85, "dap": 43, "cls": 43,
         "pretrain_control": 85, "control": 35, "report": 9},
    ),
    "tiny": Size(
        (6, 2, 16), (24, 24, 12),
        {
            "classifier": shortened(
                24, 8, "param_scheduler.1.begin=8", "param_scheduler.1.end=24",
                "custom_hooks.0.keep_going=True",
            ),
            "pretrain": shortened(24, 8, "param_scheduler.1.begin=8", "param_scheduler.1.end=24"),
            "finetune": shortened(
                12, 4, "param_scheduler.1.milestones=[10]", "train_cfg.val_interval=6"
            ),
        },
        {"data": 4, "classifier": 12, "pretrain_dap": 11, "dap": 13, "cls": 13,
         "pretrain_control": 11, "control": 12, "report": 11},
    ),
}  # fmt: skip


class Chain(NamedTuple):
    """The steps in stages; steps of the same stage run at the same time, on one core each.

    Attributes:
        seed: Seed of the data and of the initialisation.
        size: Sizes of data and trainings.
    """

    seed: int
    size: Size

    def stages(self, control: bool) -> list[list[Step]]:
        """Return all steps, in stages."""
        data = Step(
            "data",
            "make the two data sets",
            python(HERE / "shapes.py", self.seed, *self.size.data),
            "data",
        )
        classifier = self._training(
            "classifier",
            "Steps 1 and 2: train a classifier; its hook writes pseudo boxes",
            "classifier.py",
            *self.size.options.get("classifier", ()),
        )
        twin = self._training(
            "cls",
            "Step 4: fine-tune from the classifier, for comparison (cls)",
            "finetune_cls.py",
            *self._start("backbone.init_cfg", "classifier", self.size.lengths[0]),
            *self.size.options.get("finetune", ()),
        )
        controls = [[self._pretraining("control")], [self._finetuning("control")]]
        tiny = ("--tiny",) if self.size is SIZES["tiny"] else ()
        report = Step(
            "report",
            "table, and the page on boxes and curves",
            python(HERE / "report.py", "--seed", self.seed, *tiny),
            "report",
        )
        return [
            [data],
            [classifier],
            [self._pretraining("dap")],
            [self._finetuning("dap"), twin],
            *(controls if control else []),
            [report],
        ]

    def _pretraining(self, name: str) -> Step:
        boxes = "pseudo boxes" if name == "dap" else "true boxes"
        return self._training(
            f"pretrain_{name}",
            f"Step 3: pre-train the whole detector on the {boxes}",
            "pretrain_detector.py",
            *self._start("backbone.init_cfg", "classifier", self.size.lengths[0]),
            *self.size.options.get("pretrain", ()),
            *(TRUE_BOXES if name == "control" else ()),
        )

    def _finetuning(self, name: str) -> Step:
        return self._training(
            name,
            f"Step 4: fine-tune from the pre-trained detector ({name})",
            "finetune_dap.py",
            *self._start("init_cfg", f"pretrain_{name}", self.size.lengths[1]),
            *self.size.options.get("finetune", ()),
        )

    @staticmethod
    def _start(part: str, folder: str, iterations: int) -> tuple[str, ...]:
        return (f"model.{part}.checkpoint=work_dirs/{folder}/iter_{iterations}.pth",)

    def _training(self, name: str, title: str, config: str, *options: str) -> Step:
        """Return a step that runs ``mim train``."""
        long = config in ("classifier.py", "pretrain_detector.py")
        package = "mmpretrain" if config == "classifier.py" else "mmdet"
        command = python(
            "-m", "mim", "train", package, CONFIGS / config, "--work-dir", f"work_dirs/{name}",
            *(["--resume"] if long else []),
            "--cfg-options", f"randomness.seed={self.seed}", *options,
        )  # fmt: skip
        return Step(name, title, command, f"work_dirs/{name}", long, threads=2 if long else 1)


class Display:
    """Print selected lines of the running steps, each with the remaining time.

    Args:
        clock: Estimates the remaining time.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, step: Step, line: str) -> None:
        """Handle a line that a step printed."""
        if step.name == "report":
            print(line, flush=True)
            return
        if not any(mark in line for mark in ECHOED):
            return
        if counted := re.search(r"(\d+)/(\d+)", line.partition("Iter(train)")[2]):
            share = int(counted[1]) / int(counted[2])
            self.clock.note(step.name, share * (TRAINING_SHARE if step.name == "classifier" else 1))
        elif counted := re.search(r"pseudo boxes: (\d+)/(\d+)", line):
            share = int(counted[1]) / int(counted[2])
            self.clock.note(step.name, TRAINING_SHARE + (1 - TRAINING_SHARE) * share)
        text = line.split("INFO - ")[-1].strip()
        print(f"    {self.clock}  {step.name}: {text[:95]}", flush=True)


def project_sha256() -> str:
    """Return the hash of configs and scripts; if it changes, finished steps are run again."""
    no_effect = ("run.py", "report.py", "clock.py", "steps.py")  # on the results
    files = sorted(path for path in HERE.rglob("*.py") if path.name not in no_effect)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the initialisation")
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="full",
        help="tiny: takes one minute and only shows that all steps run",
    )  # fmt: skip
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/quickstart/seed<SEED>")
    parser.add_argument("--control", action="store_true", help="also pre-train on the true boxes")
    parser.add_argument("--steps", nargs="+", help="run only these steps; default: all")
    return parser.parse_args()


def chosen_stages(chain: Chain, control: bool, names: Iterable[str] | None) -> list[list[Step]]:
    """Return the stages of the chain, with only the chosen steps.

    Raises:
        ValueError: If there is no such step.
    """
    stages = chain.stages(control)
    known = [step.name for stage in stages for step in stage]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"no such step: {', '.join(unknown)}; the steps are {', '.join(known)}")
    chosen = [[step for step in stage if step.name in (names or known)] for stage in stages]
    return [stage for stage in chosen if stage]


def names_after(chain: Chain, name: str) -> list[str]:
    """Return the names of all steps in later stages than a step."""
    stages = [[step.name for step in stage] for stage in chain.stages(control=True)]
    number = next(i for i, stage in enumerate(stages) if name in stage)
    return [later for stage in stages[number + 1 :] for later in stage]


def run_chain(chain: Chain, steps: Steps, control: bool, names: Iterable[str] | None) -> float:
    """Run the unfinished steps; return the seconds of all steps, including reused ones."""
    todo: list[list[Step]] = []
    for stage in chosen_stages(chain, control, names):
        unfinished = [
            step for step in stage
            if todo or step.name == "report" or steps.seconds_of_finished(step) is None
        ]  # fmt: skip
        for step in stage:
            if step not in unfinished:
                print(f"[{step.name}] finished earlier, reused", flush=True)
        if unfinished:
            todo.append(unfinished)
    typical = chain.size.seconds
    clock = Clock([{step.name: typical[step.name] for step in stage} for stage in todo])
    display = Display(clock)
    for stage in todo:
        for name in names_after(chain, stage[0].name):
            steps.forget(name)  # its inputs are made again
        for step in stage:
            print(f"[{step.name}] {step.title}: {clock} in all", flush=True)
        steps.run(stage, display)
        for step in stage:
            clock.note(step.name, 1.0)
            print(f"[{step.name}] {steps.seconds_of_finished(step):.0f} s", flush=True)
    return sum(
        max(steps.seconds_of_finished(step) or 0.0 for step in stage)
        for stage in chain.stages(control)
    )


def main() -> None:
    """Run the chain."""
    args = parse_args()
    chain = Chain(args.seed, SIZES[args.size])
    name = f"seed{args.seed}" if args.size == "full" else f"{args.size}_seed{args.seed}"
    work_dir = (args.work_dir or Path("work_dirs/quickstart") / name).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also ends the steps
    try:
        with locked(work_dir / "run.lock"):
            steps = Steps(work_dir, project_sha256())
            started = time.monotonic()
            seconds = run_chain(chain, steps, args.control, args.steps)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; run the same command again to continue ({work_dir})")
    now = time.monotonic() - started
    print(f"{seconds / 60:.1f} minutes in all, {now / 60:.1f} now; everything is in {work_dir}")


if __name__ == "__main__":
    main()
