"""Compare opening and reading a store of random boxes with mmdet's CocoDataset.

    python tools/benchmarks/store.py open --images 1281167 --boxes 4.1e6 --classes 1000
    python tools/benchmarks/store.py open --images 14200000 --boxes 47e6 --classes 21841
    python tools/benchmarks/store.py read --photographs FOLDER

``open`` measures the time until ``dap.PseudoBoxDataset`` is ready, including checksums, its private
memory in addition to the imports, and the time of 10,000 random samples; likewise for mmdet's data
set with a COCO file of ``--coco-images`` of the images. ``read`` measures images per second of the
pipeline of Step 3 on real files, for both data sets in turn, in one process.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TAUS = [0.2, 0.3, 0.4, 0.5]


def make_store(folder: Path, images: int, boxes: float, classes: int) -> None:
    """Write a store of random boxes with the writer of Step 2."""
    from dap.store.writer import StoreWriter, default_shard_size

    writer = StoreWriter(
        folder,
        {
            "settings": {"thresholds": TAUS},
            "classifier": {},
            "image_list": {"count": images, "root": ""},
            "shard_size": default_shard_size(images),
            "categories": [{"id": i + 1, "name": f"n{i:08d}"} for i in range(classes)],
            "checkpoint": None,
            "versions": {},
        },
    )
    write_shards(writer, boxes, classes)
    writer.finish()


def image_name(index: int, classes: int) -> str:
    """Return the file name of an image with the label ``index % classes``."""
    label = index % classes
    return f"n{label:08d}/n{label:08d}_{index}.JPEG"


def write_shards(writer: Any, boxes: float, classes: int) -> None:
    """Write all shards of a store with ``boxes`` random boxes in total."""
    generator, images = np.random.default_rng(0), writer.count
    for shard in writer.begin():
        indices = writer.indices(shard)
        counts = generator.poisson(boxes / images, len(indices))
        sizes = generator.integers(200, 600, (len(indices), 2)).tolist()
        rows = _rows(generator, int(counts.sum()))
        records, start = [], 0
        for i, (height, width), count in zip(indices, sizes, counts.tolist(), strict=True):
            label = i % classes
            image_boxes = [[*row, label, 0] for row in rows[start : start + count]]
            start += count
            record: dict[str, Any] = {
                "file_name": image_name(i, classes),
                "height": height,
                "width": width,
                "boxes": image_boxes,
                "top1": True,
            }
            if not image_boxes:
                record["reason"] = "generated without boxes"
            records.append(record)
        writer.write(shard, records)


def _rows(generator: np.random.Generator, count: int) -> list[list[float]]:
    corners = generator.uniform(0, 100, (count, 2))
    extent = generator.uniform(2, 99, (count, 2))
    rows: list[list[float]] = np.round(np.hstack([corners, corners + extent]), 2).tolist()
    return rows


def private_megabytes() -> float:
    """Private memory of this process in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) / 1024


def open_one(kind: str, ann_file: str, queue: Any) -> None:
    """Open a data set and read samples of it, in a separate process."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    import dap.datasets  # noqa: F401

    init_default_scope("mmdet")
    config = {
        "type": kind,
        "ann_file": ann_file,
        "data_prefix": {"img": "images/"},
        "filter_cfg": {"filter_empty_gt": True},
        "pipeline": [],
    }
    if kind != "dap.PseudoBoxDataset":
        config["metainfo"] = {"classes": ()}
    before, begin = private_megabytes(), time.perf_counter()
    dataset = DATASETS.build(config)
    opened, memory = time.perf_counter() - begin, private_megabytes() - before
    chosen = random.Random(0).sample(range(len(dataset)), 10_000)
    begin = time.perf_counter()
    boxes = sum(len(dataset.get_data_info(index)["instances"]) for index in chosen)
    queue.put((len(dataset), opened, memory, time.perf_counter() - begin, boxes))


def report(kind: str, ann_file: Path) -> None:
    """Open a data set in a new process and print its time and memory."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=open_one, args=(kind, str(ann_file), queue))
    process.start()
    images, opened, memory, sampled, boxes = queue.get()
    process.join()
    print(
        f"{kind}, {images} images with boxes: open {opened:.2f} s, private memory {memory:.0f} MB, "
        f"10,000 random samples ({boxes} boxes) {sampled:.2f} s",
        flush=True,
    )


def reduced(annotations: Path, out: Path, images: int) -> None:
    """Write a COCO file with the first images of another one."""
    from dap.files import write_coco
    from dap.store.coco_reader import CocoReader

    with open(annotations, encoding="utf-8") as file:
        reader = CocoReader(file)
        kept = [image for image in reader.images() if image["id"] <= images]
        boxes = (a for a in reader.annotations() if a["image_id"] <= images)
        write_coco(out, {}, reader.categories, map(json.dumps, kept), map(json.dumps, boxes))


def write_example_boxes(photographs: Path, out: Path) -> list[str]:
    """Write a COCO file with three boxes per photograph; return the names of its classes."""
    import cv2

    files = sorted(path for path in photographs.glob("*/*") if path.is_file())[:300]
    classes = sorted({path.parent.name for path in files})
    images: list[dict[str, Any]] = []
    boxes: list[Any] = []
    for number, path in enumerate(files, 1):
        image: Any = cv2.imread(str(path))
        height, width = image.shape[:2]
        name = path.relative_to(photographs).as_posix()
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for k in range(3):
            box = [10.0, 10.0, width / (k + 2), height / (k + 2)]
            box = [round(value, 2) for value in box]
            boxes.append({"id": len(boxes) + 1, "image_id": number, "bbox": box, "iscrowd": 0,
                          "category_id": classes.index(path.parent.name) + 1,
                          "area": round(box[2] * box[3], 2)})  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    coco = {"images": images, "annotations": boxes, "categories": categories}
    out.write_text(json.dumps(coco))
    return classes


def read(photographs: Path, folder: Path, num_rounds: int = 5) -> None:
    """Measure images per second of both data sets, in turn."""
    import cv2
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    import dap.datasets  # noqa: F401
    from dap.store.convert import convert_annotations

    init_default_scope("mmdet")
    cv2.setNumThreads(1)
    classes = write_example_boxes(photographs, folder / "boxes.json")
    convert_annotations(folder / "boxes.json", folder / "store")
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "RandomChoiceResize", "keep_ratio": True,
         "scales": [(1333, side) for side in (96, 160, 320, 640)]},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]  # fmt: skip
    common = {"data_prefix": {"img": f"{photographs}/"}, "pipeline": pipeline}
    datasets = {
        "dap.PseudoBoxDataset": DATASETS.build(
            {"type": "dap.PseudoBoxDataset", "ann_file": str(folder / "store"), **common}
        ),
        "mmdet.CocoDataset": DATASETS.build(
            {"type": "mmdet.CocoDataset", "ann_file": str(folder / "boxes.json"),
             "metainfo": {"classes": tuple(classes)}, **common}
        ),
    }  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    for _ in range(num_rounds):
        for name, dataset in datasets.items():
            np.random.seed(0)  # noqa: NPY002 - used by mmdet's transforms
            begin = time.perf_counter()
            for index in range(len(dataset)):
                dataset[index]
            rates[name].append(len(dataset) / (time.perf_counter() - begin))
            begin = time.perf_counter()
            for index in range(len(dataset)):
                dataset.get_data_info(index)
            look_up = 1e6 * (time.perf_counter() - begin) / len(dataset)
    for name, rounds in rates.items():
        print(f"{name}: {statistics.median(rounds):.1f} images/s, rounds "
              f"{' '.join(f'{rate:.1f}' for rate in rounds)}")  # fmt: skip
    print(f"(get_data_info of the last data set took {look_up:.0f} µs per image)")


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("open", "read"))
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--boxes", type=float, default=4.1e6)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--coco-images", type=int, default=100_000)
    parser.add_argument("--photographs", type=Path, help="folder of class folders")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.what == "read":
            read(args.photographs, folder)
            return
        make_store(folder / "store", args.images, args.boxes, args.classes)
        report("dap.PseudoBoxDataset", folder / "store" / "manifest.json")
        few = min(args.images, args.coco_images)
        reduced(folder / "store" / "annotations.json", folder / "few.json", few)
        report("mmdet.CocoDataset", folder / "few.json")


if __name__ == "__main__":
    main()
