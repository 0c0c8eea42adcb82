"""Measure the speed of Step 2, together with a reference in the same run.

    python tools/benchmarks/step2.py cpu --images FOLDER [--network lite0|r18|r50] [--count 64]
    python tools/benchmarks/step2.py boxes
    python tools/benchmarks/step2.py writing

FOLDER has at most 1000 class folders of photographs; without it, random images are generated. The
weights are random, which does not affect the speed. ``cpu`` measures, with one thread, a plain loop
over images, the forward alone on the same views, and Step 2 from files to store; the last two also
with two processes. ``boxes`` compares the boxes of one map with a reference by scipy. ``writing``
measures the time to write a shard. For GPUs see gpu.py.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from step2_parts import (
    MEAN,
    NETWORKS,
    SIDES,
    STD,
    TAUS,
    ClassFolderImages,
    classifier,
    fast_forward,
    forward_seconds,
    random_photographs,
    run_step2,
    view_batches,
)

SHARD = 8  # images per shard: few, so that two processes have the same amount of work


def plain_loop(model: Any, data: ClassFolderImages) -> Iterator[int]:
    """Compute boxes one image at a time, as a reference; yield the number of boxes per image."""
    import cv2
    from scipy import ndimage

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    for index in range(len(data)):
        info = data.get_data_info(index)
        pixels: Any = cv2.imread(info["img_path"])
        pixels = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
        image = torch.from_numpy(pixels)[None].float()
        maps = []
        for side in SIDES:
            scale = side / min(image.shape[-2:])
            size = [round(length * scale) for length in image.shape[-2:]]
            view = F.interpolate(image, size, mode="bilinear", antialias=True)
            view = (view - mean) / std
            view = F.pad(view, (0, -size[1] % 32, 0, -size[0] % 32))
            with torch.no_grad():
                features = model.extract_feat(torch.cat([view, view.flip(-1)]), "backbone")[-1]
                weight = model.head.fc.weight[info["gt_label"]]
                both = (features * weight[:, None, None]).sum(1)
            maps.append((both[0] + both[1].flip(-1)) / 2)
        small = F.interpolate(maps[1][None, None], maps[0].shape, mode="bilinear")[0, 0]
        merged = (maps[0] + small) / 2
        yield len(scipy_boxes(((merged - merged.min()) / (merged.max() - merged.min())), ndimage))


def scipy_boxes(cam: torch.Tensor, ndimage: object) -> list[list[float]]:
    """Compute boxes with components by scipy, moments by torch and NMS by torchvision."""
    from torchvision.ops import nms

    boxes = []
    for tau in TAUS:
        labels, count = ndimage.label((cam > tau).numpy())  # type: ignore[attr-defined]
        labels = torch.from_numpy(labels)
        areas = [int((labels == k).sum()) for k in range(1, count + 1)]
        for k, area in enumerate(areas, 1):
            if 2 * area < max(areas):
                continue
            weight = cam * (labels == k)
            box = []
            for axis in (1, 0):
                profile = weight.sum(1 - axis)
                at = torch.arange(len(profile)) + 0.5
                centre = (profile * at).sum() / profile.sum()
                half = torch.sqrt(12 * (profile * (at - centre) ** 2).sum() / profile.sum()) / 2
                box += [float(centre - half), float(centre + half)]
            boxes.append([box[0], box[2], box[1], box[3]])
    candidates = torch.tensor(boxes)
    scores = (candidates[:, 2] - candidates[:, 0]) * (candidates[:, 3] - candidates[:, 1])
    return candidates[nms(candidates, scores, 0.8)].tolist()


def seconds_of(task: tuple, queue: object) -> None:
    """Measure one part in this process and put its seconds into the queue."""
    part, network, folder, count, rank, world_size, out = task
    multiprocessing.set_start_method("fork", force=True)  # the default of a new program
    torch.set_num_threads(1)
    data = ClassFolderImages(Path(folder), count)
    if part == "plain":
        model = classifier(network)
        next(plain_loop(model, data))
        begin = time.perf_counter()
        assert sum(plain_loop(model, data))
        taken = time.perf_counter() - begin
    elif part == "forward":
        batches = view_batches(data, "cpu", 1, rank, world_size)
        taken = forward_seconds(fast_forward(network, "cpu"), batches)
    else:
        if world_size > 1:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=world_size
            )
        from dap.pseudo_boxes import Execution

        execution = Execution(1, shard_size=SHARD, keep_going=True)
        taken = run_step2(network, data, "cpu", f"{out}/store", execution).seconds
    queue.put(taken)  # type: ignore[attr-defined]


def measured(part: str, network: str, folder: Path, count: int, world_size: int = 1) -> float:
    """Measure images per second of one part, in new processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as out:
        processes = [
            context.Process(
                target=seconds_of,
                args=((part, network, str(folder), count, rank, world_size, out), queue),
            )
            for rank in range(world_size)
        ]
        # Set before torch is imported, as tools/generate_pseudo_boxes.py does.
        os.environ["THP_MEM_ALLOC_ENABLE"] = "0" if part == "plain" else "1"
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"error: the measurement of {part!r} has failed")
    return count / max(queue.get() for _ in processes)


def cpu(network: str, folder: Path, count: int, num_rounds: int) -> None:
    """Measure targets 1 and 5; each round measures all parts in turn."""
    parts = {"plain loop": ("plain", 1), "pure forward": ("forward", 1), "Step 2": ("step2", 1),
             "Step 2, two processes": ("step2", 2),
             "pure forward, two": ("forward", 2)}  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(num_rounds):
        for name, (part, world_size) in parts.items():
            rates[name].append(measured(part, network, folder, count, world_size))
    middle = {name: statistics.median(rounds) for name, rounds in rates.items()}
    for name, rounds in rates.items():
        print(f"{network}: {name:22} {middle[name]:.3f} images/s, rounds "
              f"{' '.join(f'{rate:.3f}' for rate in rounds)}")  # fmt: skip
    for other in ("pure forward", "plain loop"):
        print(f"{network}: Step 2 / {other}: {middle['Step 2'] / middle[other]:.2f}")
    for one, two in (("Step 2", "Step 2, two processes"), ("pure forward", "pure forward, two")):
        print(f"{network}: {one}, two processes / one: {middle[two] / middle[one]:.2f}")


def writing(folder: Path) -> None:
    """Measure target 4: write a shard, relative to computing its images at 1000 images/s."""
    from dap.store.writer import StoreWriter

    generator = np.random.default_rng(0)
    described = {
        "settings": {"thresholds": list(TAUS)}, "classifier": {}, "shard_size": 1024,
        "image_list": {"count": 1024 * 20, "root": ""}, "categories": [], "checkpoint": None,
        "versions": {},
    }  # fmt: skip
    writer = StoreWriter(folder / "store", described)
    took = []
    for shard in writer.begin():
        records = []
        for index in writer.indices(shard):
            corner = generator.uniform(0, 200, (3, 2))
            boxes = np.round(np.concatenate([corner, corner + 99], 1), 2)
            rows = [[*box, index % 1000, 1] for box in boxes.tolist()]
            records.append({"file_name": f"n01440764/n01440764_{index}.JPEG", "height": 375,
                            "width": 500, "boxes": rows, "top1": True})  # fmt: skip
        begin = time.perf_counter()
        writer.write(shard, records)
        took.append(time.perf_counter() - begin)
    middle = statistics.median(took)
    print(f"a shard of 1024 images: {1000 * middle:.0f} ms to write; computing it takes 1.02 s at "
          f"1000 images/s: {middle / 1.024:.1%}")  # fmt: skip


def boxes() -> None:
    """Measure target 2: the median over maps of the best of five runs."""
    import cv2
    from scipy import ndimage

    from dap.cam import boxes_from_cam

    generator = np.random.default_rng(0)
    maps = [F.interpolate(torch.from_numpy(generator.random((1, 1, 5, 6))), (18, 24),
                          mode="bicubic")[0, 0].float() for _ in range(200)]  # fmt: skip
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # as in Step 2
    rules: tuple[Any, ...] = ("paper", "release", "extent", "scipy")
    for rule in rules:
        took = []
        for cam in maps:
            normalized = (cam - cam.min()) / (cam.max() - cam.min())
            seconds = []
            for _ in range(5):
                begin = time.perf_counter()
                if rule == "scipy":
                    scipy_boxes(normalized, ndimage)
                else:
                    boxes_from_cam(cam.numpy(), rule=rule, cell_size=32.0)
                seconds.append(time.perf_counter() - begin)
            took.append(min(seconds))  # the minimum excludes other load of the machine
        print(f"boxes of an 18 x 24 map, {rule}: {1e6 * statistics.median(took):.0f} µs")


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("cpu", "boxes", "writing"))
    parser.add_argument("--images", help="folder of class folders; default: random images")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="lite0")
    parser.add_argument("--count", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(args.images) if args.images else random_photographs(Path(folder))
        if args.what == "cpu":
            cpu(args.network, images, args.count, args.rounds)
        elif args.what == "boxes":
            boxes()
        else:
            writing(Path(folder))


if __name__ == "__main__":
    main()
