"""The quick start: DAP against classification pre-training on made-up shapes, on two CPU cores.

    uv run projects/quickstart/run.py [--seed 0] [--work-dir DIR] [--control] [--steps …]

Makes the data, runs the four steps of the paper through the real tools and configs, trains the
CLS twin on the same few images, and reports. A second call reuses the steps that are finished.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "tools"
CONFIGS = HERE / "configs"
PRETRAIN_ITERATIONS = 900
TRUE_BOXES = (  # a COCO file in place of the pseudo boxes
    "train_dataloader.dataset.type=dap.CheckedCocoDataset",
    "train_dataloader.dataset.ann_file=data/true_boxes.json",
    "train_dataloader.dataset.metainfo.classes=()",  # all categories of the file
)
ECHOED = ("Epoch(train)", "Iter(train)", "bbox_mAP_copypaste", "pseudo boxes:")


class Step(NamedTuple):
    """A command of the chain, run in the work directory.

    Attributes:
        name: For ``--steps`` and the log file.
        title: What it does, for people.
        command: Program and arguments.
        output: Folder it writes, emptied before it runs.
    """

    name: str
    title: str
    command: list[str]
    output: str


def mim_train(package: str, config: str, name: str, seed: int, *options: str) -> list[str]:
    """``mim train`` as a user types it."""
    return [
        sys.executable, "-W", "ignore", "-m", "mim", "train", package, str(CONFIGS / config),
        "--work-dir", f"work_dirs/{name}", "--cfg-options", f"randomness.seed={seed}", *options,
    ]  # fmt: skip


def pretrain_and_finetune(name: str, seed: int, *options: str) -> list[Step]:
    """Steps 3 and 4 on one set of boxes."""
    python = [sys.executable, "-W", "ignore"]
    checkpoint = f"work_dirs/pretrain_{name}/iter_{PRETRAIN_ITERATIONS}.pth"
    return [
        Step(
            f"pretrain_{name}",
            "Step 3: pre-train the whole detector on the boxes",
            mim_train("mmdet", "pretrain_detector.py", f"pretrain_{name}", seed, *options),
            f"work_dirs/pretrain_{name}",
        ),
        Step(
            f"extract_{name}",
            "its weights without the category-dependent layers",
            [*python, str(TOOLS / "extract_detector.py"), checkpoint, f"work_dirs/detector_{name}"],
            f"work_dirs/detector_{name}",
        ),
        Step(
            name,
            f"Step 4: fine-tune from the pre-trained detector ({name})",
            mim_train(
                "mmdet", "finetune_dap.py", name, seed, f"model.init_cfg.checkpoint={{{name}}}"
            ),
            f"work_dirs/{name}",
        ),
    ]


def all_steps(seed: int, control: bool) -> list[Step]:
    """The chain in its order."""
    python = [sys.executable, "-W", "ignore"]
    steps = [
        Step(
            "data", "make the two data sets", [*python, str(HERE / "shapes.py"), str(seed)], "data"
        ),
        Step(
            "classifier",
            "Steps 1 and 2: train a classifier, its hook writes pseudo boxes",
            mim_train("mmpretrain", "classifier.py", "classifier", seed),
            "work_dirs/classifier",
        ),
        *pretrain_and_finetune("dap", seed),
        Step(
            "cls",
            "the twin: fine-tune from the classifier (cls)",
            mim_train("mmdet", "finetune_cls.py", "cls", seed),
            "work_dirs/cls",
        ),
    ]
    if control:
        steps += pretrain_and_finetune("control", seed, *TRUE_BOXES)
    report = [*python, str(HERE / "report.py"), "--seed", str(seed)]
    return [*steps, Step("report", "table, and the page on boxes and curves", report, "report")]


def seconds_of_finished(step: Step, work_dir: Path) -> float | None:
    """Seconds that a finished step took; None if it is not finished, or was another command."""
    stamp = work_dir / "steps" / f"{step.name}.json"
    done = json.loads(stamp.read_text()) if stamp.exists() else {}
    same = done.get("command") == step.command and done.get("project") == project_sha256()
    return done["seconds"] if same else None


def project_sha256() -> str:
    """Hash of the configs and scripts here: an edited one makes finished steps run again."""
    files = sorted(p for p in HERE.rglob("*.py") if p.name not in ("run.py", "report.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def run_step(step: Step, work_dir: Path) -> float:
    """Run a step; return the seconds it took.

    Raises:
        SystemExit: If its command fails; the end of its log is shown.
    """
    stamp, log = work_dir / "steps" / f"{step.name}.json", work_dir / "steps" / f"{step.name}.log"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(work_dir / step.output, ignore_errors=True)
    print(f"[{step.name}] {step.title}", flush=True)
    started = time.monotonic()
    code = _run_logged(_with_detectors(step.command, work_dir), work_dir, log)
    if code:
        tail = "\n".join(log.read_text().splitlines()[-25:])
        sys.exit(f"{tail}\nerror: step {step.name} ended with code {code}; its log is {log}")
    seconds = round(time.monotonic() - started, 1)
    stamp.write_text(
        json.dumps({"command": step.command, "project": project_sha256(), "seconds": seconds})
    )
    print(f"[{step.name}] {seconds:.0f} s", flush=True)
    return seconds


def _with_detectors(command: Sequence[str], work_dir: Path) -> list[str]:
    """Put the extracted files, whose names end in their hash, in the place of ``{name}``."""
    found = {
        f"{{{path.parent.name.removeprefix('detector_')}}}": str(path.relative_to(work_dir))
        for path in sorted(work_dir.glob("work_dirs/detector_*/*.pth"))
    }
    for name, path in found.items():
        command = [argument.replace(name, path) for argument in command]
    return list(command)


def _run_logged(command: Sequence[str], work_dir: Path, log: Path) -> int:
    """Run a command, all its output to ``log``, its progress to the terminal."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            cwd=work_dir,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if any(mark in line for mark in ECHOED):
                print(f"    {line.split('INFO - ')[-1].strip()[:110]}", flush=True)
            elif log.stem == "report":
                print(line, end="", flush=True)
    return process.returncode


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of data, draw and initialisation")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/quickstart/seed<SEED>")
    parser.add_argument("--control", action="store_true", help="also pre-train on the true boxes")
    parser.add_argument("--steps", nargs="+", help="run these alone; default: all")
    return parser.parse_args()


def main() -> None:
    """Run the chain."""
    args = parse_args()
    work_dir = (args.work_dir or Path("work_dirs/quickstart") / f"seed{args.seed}").resolve()
    steps = all_steps(args.seed, args.control)
    names = [step.name for step in steps]
    unknown = set(args.steps or ()) - set(names)
    if unknown:
        sys.exit(f"error: no such step: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    work_dir.mkdir(parents=True, exist_ok=True)
    seconds, renewed = 0.0, False
    for step in steps:
        taken = seconds_of_finished(step, work_dir)
        chosen = step.name in (args.steps or names)
        if chosen and (taken is None or renewed or step.name == "report"):
            renewed = True  # what follows builds on it
            if step.name == "report":
                step.command.extend(["--seconds", str(round(seconds, 1))])
            taken = run_step(step, work_dir)
        elif chosen:
            print(f"[{step.name}] finished earlier, reused", flush=True)
        seconds += taken or 0.0
    print(f"{seconds / 60:.1f} minutes in all; everything is in {work_dir}")


if __name__ == "__main__":
    main()
