"""DAP against classification pre-training on real photographs and a detection set of one's own.

    uv run projects/real_mini/run.py --images data/imagenet/train --voc data/BCCD
    uv run projects/real_mini/run.py --images … --coco train.json test.json --folders train test
    uv run projects/real_mini/run.py … --parts all

Makes pseudo boxes of the photographs (Step 2), pre-trains detectors on them and on controls (Step
3), fine-tunes them and their CLS twins on k images a class and on all (Step 4), and writes
``report/NAME/index.md`` with tables and curves. The same call goes on where an earlier one was
ended; one with another detection set takes the pre-trained detectors that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for the modules beside this one

from plan import FINETUNING, PARTS, Benchmark, Target  # noqa: E402
from report import write_report  # noqa: E402

from dap.files import write_bytes  # noqa: E402
from dap.jobs.running import run_job, run_jobs  # noqa: E402
from dap.jobs.state import missing_inputs  # noqa: E402

# Of training on a CPU, twice as fast: what malloc has once got it keeps. On a GPU they do nothing.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
    "THP_MEM_ALLOC_ENABLE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def images_per_class(word: str) -> int | None:
    """Read a value of ``--shots``: a number, or None for ``'all'``."""
    return None if word == "all" else int(word)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of class folders")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--voc", type=Path, help="folder in VOC layout to fine-tune on")
    target.add_argument("--coco", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="COCO files")
    parser.add_argument(
        "--folders", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="images of --coco"
    )
    parser.add_argument(
        "--splits", nargs=2, default=("trainval", "test"), metavar=("TRAIN", "TEST"),
        help="lists of --voc; default: trainval test",
    )  # fmt: skip
    parser.add_argument("--classes", type=Path, help="file: classes of --voc to keep, one per line")
    parser.add_argument("--name", help="of the detection set in folders; default: its folder's")
    parser.add_argument("--parts", nargs="+", default=["core"], choices=["core", "all", *PARTS])
    parser.add_argument(
        "--shots", type=images_per_class, nargs="+", default=[5, 10, 20, None], metavar="K",
        help="images per class to draw; 'all' for all images; default: 5 10 20 all",
    )  # fmt: skip
    parser.add_argument(
        "--at", type=int, nargs="+", default=[], metavar="K",
        help="of --shots, those at which all arms are compared; default: the second",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument(
        "--scale", choices=tuple(FINETUNING), default="cpu", help="sizes and lengths"
    )
    parser.add_argument(
        "--length", type=float, default=1.0, help="of all trainings, in shares; .1 for a trial"
    )
    parser.add_argument(
        "--finetuning", type=float, default=1.0, help="length of fine-tunings, in shares of 120"
    )
    parser.add_argument(
        "--repeat-pretraining", nargs="+", default=[], choices=("pseudo", "centre", "whole"),
        help="boxes on which to pre-train with each seed; default: with seed 0 alone",
    )  # fmt: skip
    parser.add_argument(
        "--short-sides", type=int, nargs="+", help="of the views of Step 2; default: 288 576"
    )
    parser.add_argument("--truth", type=Path, help="COCO file with true boxes of --images")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/real_mini/SCALE")
    parser.add_argument(
        "--processes", type=int, default=min(8, os.cpu_count() or 1), help="trainings at a time"
    )
    parser.add_argument(
        "--report", action="store_true", help="report on what there is, run nothing"
    )
    args = parser.parse_args()
    if bool(args.coco) != bool(args.folders):
        parser.error("--coco needs --folders, and --voc has its own")
    if args.classes and not args.voc:
        parser.error("--classes needs --voc; a file of --coco has the classes it has")
    return args


def keep_source(note: Path, paths: Iterable[object], cure: str) -> None:
    """Note what results are made from; refuse to mix them with those of something else.

    Raises:
        ValueError: If the note names something else.
    """
    text = "".join(f"{path}\n" for path in paths)
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{note.absolute()}: the results beside it are of "
            f"{', '.join(note.read_text(encoding='utf-8').splitlines())}, now "
            f"{', '.join(text.splitlines())} is given. {cure}"
        )
    write_bytes(note, text.encode())


def main() -> None:
    """Plan, run, report."""
    args = parse_args()
    try:
        images = args.images.resolve()
        classes = str(args.classes.resolve()) if args.classes else None
        truth = str(args.truth.resolve()) if args.truth else None
        given = [path.resolve() for path in (args.voc, *(args.coco or ()), *(args.folders or ()))
                 if path]  # fmt: skip
        name = args.name or (given[0].name if args.voc else given[0].parent.name)
        work_dir = args.work_dir or Path("work_dirs/real_mini") / args.scale
        work_dir.mkdir(parents=True, exist_ok=True)
        os.chdir(work_dir)  # configs name their files below it
        keep_source(Path("images.txt"), [images], "Name another --work-dir for other photographs")
        parts = (*given, *(args.splits if args.voc else ()), *((classes,) if classes else ()))
        keep_source(Path(f"{name}.txt"), parts, "Give this detection set another --name")
        if args.voc:
            target = Target.from_voc(name, given[0], *args.splits, classes)
        else:
            target = Target(name, *map(str, given))
        threads = max(1, (os.cpu_count() or 1) // args.processes)
        environment = {**MALLOC, "OMP_NUM_THREADS": str(threads)}
        for job in target.jobs.values():
            run_job(job, "work_dirs", environment=environment)
        benchmark = Benchmark(
            images, target, args.shots, args.seeds, args.scale, args.processes, args.length,
            args.finetuning, args.at, args.repeat_pretraining, args.short_sides, truth,
        )  # fmt: skip
        benchmark.add(args.parts)
        if not args.report:
            jobs = list(benchmark.jobs.values())
            if missing := missing_inputs(jobs):
                raise FileNotFoundError(
                    f"{', '.join(missing)}: not there; nothing was trained. Check --images, "
                    "--voc or --coco"
                )
            started = time.monotonic()
            try:
                run_jobs(jobs, "work_dirs", args.processes, environment)
            finally:
                seconds = Path(f"{name}_seconds.json")
                earlier = json.loads(seconds.read_text()) if seconds.exists() else 0.0
                seconds.write_text(json.dumps(earlier + time.monotonic() - started))
        print(write_report(benchmark))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"\nwritten to {Path.cwd() / 'report' / name}")


if __name__ == "__main__":
    main()
