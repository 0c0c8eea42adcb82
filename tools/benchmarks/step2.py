"""Speed of Step 2, each figure beside its reference in one run.

    python tools/benchmarks/step2.py cpu --images FOLDER [--network lite0|r18|r50] [--count 64]
    python tools/benchmarks/step2.py boxes
    python tools/benchmarks/step2.py writing

FOLDER holds class folders of photographs, at most 1000; without it, photographs are made up. The
weights are random, of which speed does not depend. ``cpu``: with one thread, the plain loop over
images, the pure forward of the same views, and Step 2 from files to store; the latter two in two
processes, too.
``boxes``: boxes of one map against a reference with scipy. ``writing``: the cost of a shard.
On a GPU: gpu.py.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from dap.pseudo_boxes import Execution

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIDES, TAUS = (576, 288), (0.2, 0.3, 0.4, 0.5)
SHARD = 8  # images: small, so that two processes have as much to do
NETWORKS = {
    "lite0": ({"type": "TIMMBackbone", "model_name": "tf_efficientnet_lite0",
               "features_only": False, "pretrained": False}, 1280),
    "r18": ({"type": "ResNet", "depth": 18, "out_indices": (3,)}, 512),
    "r50": ({"type": "ResNet", "depth": 50, "out_indices": (3,)}, 2048),
    "tiny": ({"type": "ResNet", "depth": 18, "out_indices": (3,), "base_channels": 8,
              "stem_channels": 8}, 64),
}  # fmt: skip


def classifier(network: str, device: str = "cpu") -> torch.nn.Module:
    """Build a classifier of 1000 classes with random weights."""
    import mmpretrain.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    backbone, channels = NETWORKS[network]
    config = {
        "type": "ImageClassifier",
        "backbone": backbone,
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 1000, "in_channels": channels},
        "data_preprocessor": {"mean": MEAN, "std": STD, "to_rgb": True},
    }
    model = MODELS.build(config).to(device)
    model.eval()
    return model


class Listed:
    """The first images of a folder of class folders, repeated; an mmpretrain dataset.

    Args:
        folder: Class folders.
        count: Number of images.
    """

    metainfo: dict = {}  # noqa: RUF012
    data_root = ""

    def __init__(self, folder: Path, count: int) -> None:
        self.files = sorted(path for path in folder.glob("*/*") if path.is_file())
        self.count = count
        self.step = max(1, len(self.files) // count)

    def full_init(self) -> None:
        """All is there."""

    def __len__(self) -> int:
        return self.count

    def get_data_info(self, index: int) -> dict:
        """Path and class of an image."""
        place = index * self.step % len(self.files)
        return {"img_path": str(self.files[place]), "gt_label": place % 1000}


def made_up(folder: Path) -> Path:
    """Photographs in the sizes that are most frequent in ImageNet."""
    import cv2

    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(375, 500)] * 12 + [(500, 375)] * 3 + [(333, 500)]):
        small = generator.integers(0, 256, (9, 9, 3), np.uint8)
        noise = generator.integers(0, 20, (height, width, 3), np.uint8)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) // 2 + noise
        (folder / "made_up").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "made_up" / f"{number}.jpg"), image)
    return folder


def plain_loop(model: torch.nn.Module, data: Listed) -> Iterator[int]:
    """One image at a time, as it is usually written: the reference; yields the number of boxes."""
    import cv2
    from scipy import ndimage

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    for index in range(len(data)):
        info = data.get_data_info(index)
        image = cv2.imread(info["img_path"])[..., ::-1].transpose(2, 0, 1)
        image = torch.from_numpy(np.ascontiguousarray(image))[None].float()
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
    """Components by scipy, moments by torch, NMS by torchvision."""
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
    found = torch.tensor(boxes)
    area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
    return found[nms(found, area, 0.8)].tolist()


def view_batches(
    data: Listed, device: str, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[torch.Tensor]:
    """The views of a rank's images as Step 2 batches them, random numbers of the same shapes."""
    from dap.cam import padded_size
    from dap.images.image_files import read_image
    from dap.pseudo_boxes.batched_maps import BatchLimit
    from dap.pseudo_boxes.pipeline import WINDOW_CPU, WINDOW_GPU

    sizes = [tuple(read_image(data.get_data_info(i)["img_path"]).shape[1:])
             for i in range(rank, len(data), world_size)]  # fmt: skip
    batches = []
    limit = BatchLimit(batch_size, max(SIDES))
    window = WINDOW_CPU if device == "cpu" else WINDOW_GPU
    for start in range(0, len(sizes), window):
        for side in SIDES:
            shapes: dict[tuple[int, int], int] = {}
            for size in sizes[start : start + window]:
                padded = padded_size(size, side)
                shapes[padded] = shapes.get(padded, 0) + 1
            for shape, count in shapes.items():
                for at in range(0, count, limit.of(shape)):
                    batches.append((min(limit.of(shape), count - at), *shape))
    return [
        torch.rand(2 * n, 3, h, w, device=device).contiguous(memory_format=torch.channels_last)
        for n, h, w in batches
    ]


def fast_forward(
    network: str, device: str, autocast: str | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward that Step 2 uses."""
    from dap._malloc import tune_malloc
    from dap.pseudo_boxes import CamClassifier

    if device == "cpu":
        tune_malloc()
    maker = CamClassifier(classifier(network, device))
    maker.speed_up()
    return maker.features_with(autocast)


def seconds_of(task: tuple, queue: object) -> None:
    """Measure one part in a process of its own; put its seconds into the queue."""
    part, network, folder, count, rank, world_size, out = task
    multiprocessing.set_start_method("fork", force=True)  # as in a program that was just started
    torch.set_num_threads(1)
    data = Listed(Path(folder), count)
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


def forward_seconds(forward: Callable[[torch.Tensor], torch.Tensor], batches: list) -> float:
    """Seconds of the network alone, after one batch of each shape on a GPU and three on a CPU."""
    shapes = {batch.shape: batch for batch in batches}
    with torch.inference_mode():
        for batch in shapes.values() if torch.cuda.is_available() else batches[:3]:
            forward(batch)
        _wait()
        begin = time.perf_counter()
        for batch in batches:
            forward(batch)
        _wait()
    return time.perf_counter() - begin


class Run(NamedTuple):
    """What a run of Step 2 took, by the first process; in others all is 0 but ``writing``.

    Attributes:
        seconds: From the start of the first image to the end of the last.
        steady: Images per second without the first quarter, in which processes start; of all
            where that is less than a window of a GPU, whose images are finished together.
        writing: Seconds of writing the shards.
        mean_batch: Images per batch in the mean; 0 if each is computed alone.
    """

    seconds: float
    steady: float
    writing: float
    mean_batch: float


def run_step2(
    network: str,
    data: Listed,
    device: str,
    out: str,
    execution: "Execution",
    autocast: str | None = None,
) -> Run:
    """Run Step 2 from files to store.

    Args:
        network: Key of ``NETWORKS``.
        data: The images.
        device: Where to compute.
        out: Folder to write.
        execution: With ``keep_going``, as random weights make worthless boxes.
        autocast: Half precision, or None.
    """
    from dap.pseudo_boxes import PseudoBoxSettings, generate_pseudo_boxes
    from dap.pseudo_boxes.pipeline import WINDOW_GPU, Pipeline
    from dap.store.writer import StoreWriter

    clock, writing, mean_batch = Clock(), 0.0, 0.0
    write, describe = StoreWriter.write, Pipeline.mean_batch

    def timed_write(*args: object) -> None:
        nonlocal writing
        begin = time.perf_counter()
        write(*args)  # type: ignore[arg-type]
        writing += time.perf_counter() - begin

    def watched_mean(pipeline: Pipeline) -> str:
        nonlocal mean_batch
        mean_batch = pipeline.images_done / max(1, pipeline.batches_done)
        return describe(pipeline)

    StoreWriter.write = timed_write  # type: ignore[assignment]
    Pipeline.mean_batch = watched_mean  # type: ignore[method-assign]
    try:
        model = classifier(network, device)
        settings = PseudoBoxSettings(autocast=autocast)
        generate_pseudo_boxes(model, data, out, settings, execution=execution, watcher=clock)
    finally:
        StoreWriter.write = write  # type: ignore[method-assign]
        Pipeline.mean_batch = describe  # type: ignore[method-assign]
    ends = [clock.begin, *clock.times]
    quarter = len(clock.times) // 4 // WINDOW_GPU * WINDOW_GPU
    taken = ends[-1] - ends[quarter]
    steady = (len(clock.times) - quarter) / taken if taken else 0.0
    return Run(ends[-1] - clock.begin, steady, writing, mean_batch)


class Clock:
    """Takes the time of each image from the start of a run on, in its first process."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.times: list[float] = []

    def start(self, *_: object) -> None:
        """Start."""
        self.begin = time.perf_counter()

    def image_done(self, *_: object) -> None:
        """Take the time of an image."""
        self.times.append(time.perf_counter())


def measured(part: str, network: str, folder: Path, count: int, world_size: int = 1) -> float:
    """Images per second of one part, in fresh processes."""
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
        # Before torch is imported there, as tools/generate_pseudo_boxes.py does and loops do not.
        os.environ["THP_MEM_ALLOC_ENABLE"] = "0" if part == "plain" else "1"
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"error: the measurement of {part!r} has failed")
    return count / max(queue.get() for _ in processes)


def cpu(network: str, folder: Path, count: int, rounds: int) -> None:
    """Targets 1 and 5: each round measures all parts, one after the other."""
    parts = {"plain loop": ("plain", 1), "pure forward": ("forward", 1), "Step 2": ("step2", 1),
             "Step 2, two processes": ("step2", 2),
             "pure forward, two": ("forward", 2)}  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, (part, world_size) in parts.items():
            rates[name].append(measured(part, network, folder, count, world_size))
    middle = {name: statistics.median(own) for name, own in rates.items()}
    for name, own in rates.items():
        print(f"{network}: {name:22} {middle[name]:.3f} images/s, rounds "
              f"{' '.join(f'{rate:.3f}' for rate in own)}")  # fmt: skip
    for other in ("pure forward", "plain loop"):
        print(f"{network}: Step 2 / {other}: {middle['Step 2'] / middle[other]:.2f}")
    for one, two in (("Step 2", "Step 2, two processes"), ("pure forward", "pure forward, two")):
        print(f"{network}: {one}, two processes / one: {middle[two] / middle[one]:.2f}")


def writing(folder: Path) -> None:
    """Target 4: a shard of 1024 images against computing them at 1000 images/s."""
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


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def boxes() -> None:
    """Target 2: the median over maps of the best of five tries."""
    import cv2
    from scipy import ndimage

    from dap.cam import boxes_from_cam

    generator = np.random.default_rng(0)
    maps = [F.interpolate(torch.from_numpy(generator.random((1, 1, 5, 6))), (18, 24),
                          mode="bicubic")[0, 0].float() for _ in range(200)]  # fmt: skip
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # as in Step 2
    for rule in ("paper", "release", "extent", "scipy"):
        took = []
        for cam in maps:
            own = (cam - cam.min()) / (cam.max() - cam.min())
            tries = []
            for _ in range(5):
                begin = time.perf_counter()
                if rule == "scipy":
                    scipy_boxes(own, ndimage)
                else:
                    boxes_from_cam(cam.numpy(), rule=rule, cell_size=32.0)
                tries.append(time.perf_counter() - begin)
            took.append(min(tries))  # what the code takes, not what else the machine does
        print(f"boxes of an 18 x 24 map, {rule}: {1e6 * statistics.median(took):.0f} µs")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("cpu", "boxes", "writing"))
    parser.add_argument("--images", help="folder of class folders; default: made-up photographs")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="lite0")
    parser.add_argument("--count", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(args.images) if args.images else made_up(Path(folder))
        if args.what == "cpu":
            cpu(args.network, images, args.count, args.rounds)
        elif args.what == "boxes":
            boxes()
        else:
            writing(Path(folder))


if __name__ == "__main__":
    main()
