"""What Step 2 does before its first and after its last image, at the size of ImageNet-14M.

    python tools/benchmarks/start_and_end.py --images 14200000 --boxes 47e6 --classes 21841

Images and boxes are made up: no file is read, no map computed. Each part runs in a process of its
own; its seconds and the largest memory that it took beyond the imports are printed. The shards,
which a run writes meanwhile, take minutes to make up; the store needs 2 GB of disk for the default
size, annotations.json 9 GB.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from store import made_up_name, write_shards

TAUS = [0.2, 0.3, 0.4, 0.5]


class MadeUp:
    """A dataset of class folders that exist in name alone.

    Args:
        images: Number of images.
        classes: Number of classes.
    """

    data_root = "/made/up"

    def __init__(self, images: int, classes: int) -> None:
        self.images, self.classes = images, classes
        names = [f"n{label:08d}" for label in range(classes)]
        self.folder_to_idx = {name: label for label, name in enumerate(names)}
        self.metainfo = {"classes": names}

    def full_init(self) -> None:
        """Do nothing: images are listed by :meth:`samples`."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Path and label of an image."""
        label = index % self.classes
        return {"img_path": f"/made/up/{made_up_name(index, self.classes)}", "gt_label": label}

    def samples(self) -> Iterator[tuple[str, int]]:
        """Names and labels of all images."""
        for index in range(self.images):
            yield made_up_name(index, self.classes), index % self.classes


def writer_of(images: int, classes: int, folder: Path) -> Any:
    """List the images and describe the run, as the first process does."""
    from dap.images.labelled_images import LabelledImages
    from dap.pseudo_boxes.run_description import describe_run
    from dap.store.writer import StoreWriter

    process = {
        "settings": {"thresholds": TAUS},
        "classifier": {"num_classes": classes},
        "computation": {},
        "versions": {},
    }
    listed = LabelledImages(MadeUp(images, classes))
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
    """Map the list of images, as the other processes do, and look at a thousand of them."""
    from dap.images.image_list import ImageList

    images = ImageList.load(folder / "images.safetensors")
    step = max(1, len(images) // 1000)
    return sum(len(images.name(i)) for i in range(0, len(images), step))


def judge(folder: Path, summary: dict[str, Any]) -> None:
    """Look at all boxes and say what they look like."""
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
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
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
        measured("(make up all shards)", write_shards, writer, args.boxes, args.classes)
        measured("start: look at all shards of a run that goes on", writer.begin)
        summary = measured("end: check the shards, count, write the manifest", writer.conclude)
        measured("end: the verdict", judge, folder, summary)
        measured("end: annotations.json and summary.json", writer.write_derived, summary)
        size = (folder / "store" / "annotations.json").stat().st_size
        print(f"annotations.json: {size / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
