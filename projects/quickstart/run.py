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
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for the modules beside this one

from chain import SIZES, Chain, chosen_stages, names_after  # noqa: E402
from clock import Clock  # noqa: E402
from steps import Step, Steps  # noqa: E402

from dap.files import locked  # noqa: E402

TRAINING_SHARE = 0.8  # share of the training in the time of Steps 1 and 2
ECHOED = ("Iter(train)", "bbox_mAP_copypaste", "pseudo boxes:")


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
    no_effect = ("run.py", "chain.py", "report.py", "clock.py", "steps.py")  # on the results
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
