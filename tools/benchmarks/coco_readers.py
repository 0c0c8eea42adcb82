"""Compare readers of the COCO file of a store: by line, by ijson, and as a whole.

    pip install ijson
    python tools/benchmarks/coco_readers.py --images 100000 --rounds 3
    python tools/benchmarks/coco_readers.py --images 1281167 --steps convert

A store of random boxes is written, whose ``annotations.json`` is then read in two ways: ``read``
iterates over all images and annotations once, ``convert`` makes a store of the file, as
``tools/convert_annotations.py`` does. The readers run in turn, each in a new process. Printed are
medians: the CPU time, also relative to that of the reader by line; the wall time; and the peak
memory (``ru_maxrss``) in addition to that after the imports.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from store import make_store

BY_LINE, IJSON, WHOLE = "by line", "ijson", "whole file"


class IjsonReader:
    """Reads a COCO file by ijson, with the interface of :class:`dap.store.coco_reader.CocoReader`.

    A list that is missing is read as an empty one, and errors are those of ijson.

    Args:
        file: The open file.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file.buffer
        self.info: Any = next(self._values("info"))
        self.categories: Any = next(self._values("categories"))

    def images(self) -> Iterator[Any]:
        """Iterate over the images; ijson parses the file to its end, past the annotations."""
        return self._values("images.item")

    def annotations(self) -> Iterator[Any]:
        """Iterate over the annotations."""
        return self._values("annotations.item")

    def skip_images(self) -> None:
        """Do nothing: :meth:`annotations` parses the file from its start."""

    def _values(self, prefix: str) -> Iterator[Any]:
        import ijson

        self._file.seek(0)
        return ijson.items(self._file, prefix, use_float=True)


def read(reader: str, path: Path, _: Path) -> int:
    """Iterate over all items of a file; return their number."""
    from dap.store.coco_reader import CocoReader

    with open(path, encoding="utf-8") as file:
        if reader == WHOLE:
            content = json.load(file)
            return len(content["images"]) + len(content["annotations"])
        coco: Any = {BY_LINE: CocoReader, IJSON: IjsonReader}[reader](file)
        return sum(1 for _ in coco.images()) + sum(1 for _ in coco.annotations())


def convert(reader: str, path: Path, out: Path) -> int:
    """Make a store of a file; return the number of its images."""
    from dap.store import coco_source
    from dap.store import convert as module

    if reader == IJSON:
        coco_source.CocoReader = IjsonReader  # type: ignore[assignment,misc]
    elif reader == WHOLE:
        module.open_coco_source = coco_source._source_in_memory
    return int(module.coco_to_store(path, out)["images"])


STEPS: dict[str, Callable[[str, Path, Path], int]] = {"read": read, "convert": convert}


def measure(step: str, reader: str, path: Path, queue: Any) -> None:
    """Run one step by one reader, in a separate process."""
    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        memory, cpu, begin = peak_megabytes(), time.process_time(), time.perf_counter()
        STEPS[step](reader, path, Path(out, "store"))
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        queue.put((cpu, wall, peak_megabytes() - memory))


def peak_megabytes() -> float:
    """Return the peak of the resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_new_process(target: Callable[..., Any], *args: Any) -> None:
    """Run a function in a new process, which starts with the imports of this one."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{target.__name__}{args} failed with status {process.exitcode}")


def compare(step: str, readers: list[str], path: Path, rounds: int) -> None:
    """Run one step by all readers in turn; print the medians."""
    results: dict[str, list[tuple[float, float, float]]] = {reader: [] for reader in readers}
    queue = multiprocessing.get_context("fork").SimpleQueue()
    for _ in range(rounds):
        for reader in readers:
            in_new_process(measure, step, reader, path, queue)
            results[reader].append(queue.get())
    first = None
    for reader, values in results.items():
        cpu, wall, memory = map(statistics.median, zip(*values, strict=True))
        first = first or cpu
        print(
            f"{step}, {reader}: {cpu:.1f} s of CPU time ({cpu / first:.2f}), {wall:.1f} s, "
            f"{memory:.0f} MB",
            flush=True,
        )


def main() -> None:
    """Write a file and compare the readers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=float, default=3, help="mean number per image")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--readers", nargs="+", default=[BY_LINE, IJSON, WHOLE])
    parser.add_argument("--folder", type=Path, help="where the files are written")
    args = parser.parse_args()
    import ijson.backends.yajl2_c  # noqa: F401 - the other backends are slower

    import dap.store.convert  # noqa: F401

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        boxes = args.boxes * args.images
        in_new_process(make_store, folder / "store", args.images, boxes, args.classes)
        path = folder / "store" / "annotations.json"
        print(f"{args.images} images, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        for step in args.steps:
            compare(step, args.readers, path, args.rounds)


if __name__ == "__main__":
    main()
