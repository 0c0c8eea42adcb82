"""Kill Step 2 at random times until it is finished, and compare with a run without kills.

    python tools/benchmarks/kills.py --kills 100

Each start has 1, 2 or 3 processes (gloo), which are killed by SIGKILL after a random time; their
reading processes are not killed. When a run finishes, all files must be identical to those of the
run without kills; then the folder is emptied.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from dap.pseudo_boxes import Execution, PseudoBoxSettings, generate_pseudo_boxes
from dap.testing import make_class_folders, tiny_classifier_config

SETTINGS = PseudoBoxSettings(short_sides=(64,), thresholds=(0.2, 0.4))


def files_of(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run_rank(images: str, out: str, meeting: str, rank: int, world_size: int) -> None:
    """Run one process of Step 2."""
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.registry import MODELS

    multiprocessing.set_start_method("fork", force=True)  # the default of a new program
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
        )
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    model = MODELS.build(tiny_classifier_config())
    dataset = CustomDataset(data_root=images)
    execution = Execution(num_workers=1, shard_size=8)
    generate_pseudo_boxes(model, dataset, out, SETTINGS, execution=execution)


class Runs:
    """Starts Step 2 on the same images.

    Args:
        folder: Working folder.
        images: Images per class, of three classes.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.images = make_class_folders(folder / "images", images)
        (self.images / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
        self.out, self._folder, self._starts = folder / "out", folder, 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["mmpretrain.models", "dap.pseudo_boxes"])

    def start(self, world_size: int) -> Sequence[BaseProcess]:
        """Start Step 2 with ``world_size`` processes."""
        self._starts += 1
        common = str(self.images), str(self.out), str(self._folder / f"meeting{self._starts}")
        processes = [
            self._context.Process(target=run_rank, args=(*common, rank, world_size))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        return processes

    def shards(self) -> int:
        """Number of shards that are there."""
        return len(list((self.out / "shards").glob("*.arrow")))

    def finish(self, processes: Sequence[BaseProcess]) -> None:
        """Wait for the end; it must be a good one."""
        for process in processes:
            process.join(timeout=300)
        if any(process.exitcode != 0 for process in processes):
            raise RuntimeError(f"exit codes {[process.exitcode for process in processes]}")


def has_changed(runs: Runs, shards: int) -> bool:
    """Whether a run has more or fewer shards than before."""
    return runs.shards() != shards


def kill(processes: Sequence[BaseProcess], seconds: float, begun: Callable[[], bool]) -> bool:
    """Kill processes so many seconds after they have begun; tell whether one was still at work."""
    end = None
    while any(process.is_alive() for process in processes):
        if end is None and begun():
            end = time.monotonic() + seconds
        if end is not None and time.monotonic() > end:
            break
        time.sleep(0.005)
    alive = any(process.exitcode != 0 for process in processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    return alive


def kill_until(folder: Path, kills: int, images: int, seed: int) -> dict[str, int]:
    """Kill and restart Step 2 until there were enough kills.

    Returns:
        Number of kills, of finished starts, of comparisons with the run without kills, and of
        kills at which some but not all shards were written.

    Raises:
        RuntimeError: If a start fails or a file differs.
    """
    runs = Runs(folder, images)
    runs.finish(runs.start(1))  # includes imports, which later starts share
    expected = files_of(runs.out)
    shutil.rmtree(runs.out)
    started = time.monotonic()
    runs.finish(runs.start(1))
    seconds = time.monotonic() - started
    shutil.rmtree(runs.out)
    generator = random.Random(seed)
    done = {"kills": 0, "finished": 0, "compared": 0, "kills_with_some_shards": 0}
    while done["kills"] < kills:
        shards = runs.shards()
        processes = runs.start(generator.choice((1, 2, 3)))
        if generator.random() < 0.5:  # at any time; otherwise while shards are written
            killed = kill(processes, generator.uniform(0, seconds), lambda: True)
        else:
            half = generator.uniform(0, seconds / 2)
            killed = kill(processes, half, partial(has_changed, runs, shards))
        if killed:
            done["kills"] += 1
            done["kills_with_some_shards"] += 0 < runs.shards() < -(-(3 * images + 1) // 8)
        else:
            done["finished"] += 1
            _compare(runs.out, expected, done)
            shutil.rmtree(runs.out)
    runs.finish(runs.start(generator.choice((1, 2, 3))))
    _compare(runs.out, expected, done)
    return done


def _compare(out: Path, expected: dict[str, bytes], done: dict[str, int]) -> None:
    files = files_of(out)
    differing = [name for name in expected.keys() | files.keys()
                 if expected.get(name) != files.get(name)]  # fmt: skip
    if differing:
        raise RuntimeError(f"after {done}: {sorted(differing)} differ from the undisturbed run")
    done["compared"] += 1


def main() -> None:
    """Run the test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=100, help="per class, of three classes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = kill_until(Path(folder), args.kills, args.images, args.seed)
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    print(f"seed {args.seed}: {done}; every file as in the undisturbed run")


if __name__ == "__main__":
    main()
