"""Measure Step 2 before its first and after its last image, at the size of ImageNet-14M.

    python tools/benchmarks/start_and_end.py --images 14200000 --boxes 47e6 --classes 21841

Names and boxes are generated: no image is read, and no map is computed. Each part runs in a
separate process, and its time and its peak memory in addition to the imports are printed.
Generating the shards takes minutes. With the default size, the store needs 2 GB of disk and
annotations.json 9 GB.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from store import image_name, write_shards

TAUS = [0.2, 0.3, 0.4, 0.5]


class GeneratedDataset:
    """A dataset of class folders without files.

    Args:
        images: Number of images.
        classes: Number of classes.
    """

    data_root = "/generated"

    def __init__(self, images: int, classes: int) -> None:
        self.images, self.classes = images, classes
        names = [f"n{label:08d}" for label in range(classes)]
        self.folder_to_idx = {name: label for label, name in enumerate(names)}
        self.metainfo = {"classes": names}

    def full_init(self) -> None:
        """Do nothing: images are listed by :meth:`samples`."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return path and label of an image."""
        label = index % self.classes
        return {"img_path": f"/generated/{image_name(index, self.classes)}", "gt_label": label}

    def samples(self) -> Iterator[tuple[str, int]]:
        """Yield names and labels of all images."""
        for index in range(self.images):
            yield image_name(index, self.classes), index % self.classes


def writer_of(images: int, classes: int, folder: Path) -> Any:
    """List the images and describe the run, like the first process of a run."""
    from dap.images.labelled_images import LabelledImages
    from dap.pseudo_boxes.run_description import describe_run
    from dap.store.writer import StoreWriter

    process = {
        "settings": {"thresholds": TAUS},
        "classifier": {"num_classes": classes},
        "computation": {},
        "versions": {},
    }
    listed = LabelledImages(GeneratedDataset(images, classes))
    writer = StoreWriter(folder / "store", describe_run(process, listed, None))
    listed.list.save(folder / "images.safetensors")
    return writer


def measured(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a forked process; print its seconds and memory, return its result."""
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def call() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        result = function(*args)
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        queue.put((seconds, peak / 1024, result))

    process = multiprocessing.get_context("fork").Process(target=call)
    process.start()
    seconds, peak, result = queue.get()
    process.join()
    print(f"{name:58} {seconds:8.2f} s {peak:8.0f} MB", flush=True)
    return result


def load(folder: Path) -> int:
    """Map the list of images, like the other processes, and read a thousand of its names."""
    from dap.images.image_list import ImageList

    images = ImageList.load(folder / "images.safetensors")
    step = max(1, len(images) // 1000)
    return sum(len(images.name(i)) for i in range(0, len(images), step))


def judge(folder: Path, summary: dict[str, Any]) -> None:
    """Compute the survey of all boxes and the verdict."""
    from dap.pseudo_boxes import PseudoBoxStore
    from dap.runs.verdict import verdict
    from dap.store.survey import survey

    verdict(survey(PseudoBoxStore(folder / "store", verify=False)), summary)


def main() -> None:
    """Measure each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=14_200_000)
    parser.add_argument("--boxes", type=float, default=47e6)
    parser.add_argument("--classes", type=int, default=21_841)
    parser.add_argument("--folder", help="folder to write to; default: a temporary folder")
    args = parser.parse_args()
    import dap.pseudo_boxes

    print(f"dap {dap.__version__}: {args.images} images, {args.boxes:.3g} boxes")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        writer = measured(
            "start: list, hash and share the images, name the classes",
            writer_of, args.images, args.classes, folder,
        )  # fmt: skip
        measured("start: map the list in another process", load, folder)
        measured("start: prepare an empty folder", writer.begin)
        measured("(generate all shards)", write_shards, writer, args.boxes, args.classes)
        measured("start: check all shards of a resumed run", writer.begin)
        summary = measured("end: check the shards, count, write the manifest", writer.conclude)
        measured("end: the verdict", judge, folder, summary)
        measured("end: annotations.json and summary.json", writer.write_derived, summary)
        size = (folder / "store" / "annotations.json").stat().st_size
        print(f"annotations.json: {size / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
