"""Check and measure all parts of DAP that use a GPU in at most ten minutes, without network.

    python tools/benchmarks/gpu.py --images FOLDER --out gpu.jsonl
    python tools/benchmarks/gpu.py --device cpu --quick      # test of the script itself

FOLDER has class folders of photographs; without it, random images are generated. Weights are
random, which does not affect the speed. Each section runs in a separate process with a time limit,
so that a failed or hanging section does not affect the others. Rows are appended to --out as they
are measured, and printed as a table at the end. The exit status is 1 if a row failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 9.5  # for all sections together
LIMITS = {
    "environment": 60, "operators": 90, "tests": 240, "speed, bf16": 150, "speed, float32": 120,
    "profile": 90, "training": 120, "training, AMP": 120,
}  # fmt: skip
TAIL = 15  # lines of a failed section that are kept


def main() -> None:
    """Run all sections in separate processes, or one section in this process."""
    args = parse_args()
    args.out = str(Path(args.out).resolve())  # a section may work in another folder
    if args.section:
        run_section(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            from step2_parts import random_photographs

            args.images = str(random_photographs(Path(folder) / "images"))
        args.images = str(Path(args.images).resolve())
        rows = run_all(args, Path(folder))
    print_table(rows)
    sys.exit(any(row["state"] == "failed" for row in rows))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--images", help="folder of class folders; default: random images")
    parser.add_argument("--out", default="gpu.jsonl", help="file that rows are appended to")
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS))
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, min(16, cores - 1)),
        help="number of reading processes",
    )
    parser.add_argument("--section", choices=LIMITS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_all(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Run the sections in turn; return all rows, including failures."""
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows_before = len(read_rows(out))
    deadline = time.monotonic() + 60 * MINUTES
    for section in args.only:
        seconds = min(LIMITS[section], deadline - time.monotonic())
        print(f"{section}: at most {max(0, seconds):.0f} s", flush=True)
        begin = time.monotonic()
        problem = "no time is left" if seconds < 5 else attempt(args, section, seconds, folder)
        taken = f"{time.monotonic() - begin:.0f} s"
        if problem:
            append(out, section, "the section as a whole", f"after {taken}: {problem}", "failed")
        else:
            append(out, section, "the section as a whole", taken, "ok")
    return read_rows(out)[rows_before:]


def attempt(args: argparse.Namespace, section: str, seconds: float, folder: Path) -> str | None:
    """Run a section in a process; return a description of the problem, or None."""
    log = folder / "section.log"
    command = [sys.executable, __file__, "--section", section, "--device", args.device,
               "--images", args.images, "--out", args.out, "--workers", str(args.workers),
               *["--quick"] * args.quick]  # fmt: skip
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1"}
    if args.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif section.startswith(("speed", "profile")):  # like tools/generate_pseudo_boxes.py
        environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"not finished within {seconds:.0f} s\n{tail(log)}"
    return None if process.returncode == 0 else f"exit code {process.returncode}\n{tail(log)}"


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL:])


def run_section(args: argparse.Namespace) -> None:
    """Run one section in this process."""
    import multiprocessing

    from gpu_rows import Options, Row

    multiprocessing.set_start_method("fork", force=True)  # the default of a new program
    options = Options(args.device, args.quick, Path(args.images), args.workers)

    def report(row: Row) -> None:
        append(Path(args.out), args.section, *row)

    section_function(args.section)(options, report)


def section_function(section: str) -> Callable:
    """Import the function of a section, in the process of the section."""
    if section in ("environment", "tests"):
        import gpu_checks

        return gpu_checks.environment if section == "environment" else gpu_checks.tests
    if section == "operators":
        from gpu_operators import operators

        return operators
    if section.startswith("training"):
        from gpu_training import training

        return partial(training, amp="AMP" in section)
    from gpu_step2 import profile, speed

    if section == "profile":
        return profile
    return partial(speed, autocast="bf16" if "bf16" in section else None)


def append(out: Path, section: str, what: str, result: str, state: str) -> None:
    """Append a row to the file."""
    row = {"section": section, "what": what, "result": result, "state": state}
    with open(out, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(out: Path) -> list[dict]:
    """Read all rows of the file."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def print_table(rows: list[dict]) -> None:
    """Print all rows, and the number of rows per state."""
    width = max(len(row["what"]) for row in rows)
    print(f"\n{'state':8} {'section':15} {'what':{width}} result")
    for row in rows:
        first, *more = row["result"].splitlines() or [""]
        print(f"{row['state']:8} {row['section']:15} {row['what']:{width}} {first}")
        for line in more:
            print(f"{'':8} {'':15} {line}")
    states = [row["state"] for row in rows]
    print(", ".join(f"{states.count(state)} {state}" for state in sorted({*states})))


if __name__ == "__main__":
    main()
