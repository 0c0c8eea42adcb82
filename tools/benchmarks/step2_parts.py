"""Parts that the benchmarks of Step 2 share: classifiers, images, the forward, and timed runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from dap.pseudo_boxes import Execution

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIDES, TAUS = (576, 288), (0.2, 0.3, 0.4, 0.5)
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


class ClassFolderImages:
    """An mmpretrain dataset of evenly spread images of a folder of class folders, repeated.

    Args:
        folder: Folder of class folders.
        count: Number of images.
    """

    metainfo: dict = {}  # noqa: RUF012
    data_root = ""

    def __init__(self, folder: Path, count: int) -> None:
        self.files = sorted(path for path in folder.glob("*/*") if path.is_file())
        self.count = count
        self.step = max(1, len(self.files) // count)

    def full_init(self) -> None:
        """Do nothing: files are listed in ``__init__``."""

    def __len__(self) -> int:
        return self.count

    def get_data_info(self, index: int) -> dict:
        """Return path and class of an image."""
        number = index * self.step % len(self.files)
        return {"img_path": str(self.files[number]), "gt_label": number % 1000}


def random_photographs(folder: Path) -> Path:
    """Write random images in the most frequent sizes of ImageNet."""
    import cv2

    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(375, 500)] * 12 + [(500, 375)] * 3 + [(333, 500)]):
        small = generator.integers(0, 256, (9, 9, 3), np.uint8)
        noise = generator.integers(0, 20, (height, width, 3), np.uint8)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) // 2 + noise
        (folder / "random").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "random" / f"{number}.jpg"), image)
    return folder


def view_batches(
    data: ClassFolderImages, device: str, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[torch.Tensor]:
    """Make random tensors with the shapes of the batches of views of a rank in Step 2."""
    from dap.cam import padded_size
    from dap.images.image_files import read_image
    from dap.pseudo_boxes.batched_maps import BatchLimit
    from dap.pseudo_boxes.pipeline import WINDOW_CPU, WINDOW_GPU

    sizes: list[Any] = [tuple(read_image(data.get_data_info(i)["img_path"]).shape[1:])
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
    """Build the forward that Step 2 uses."""
    from dap._malloc import tune_malloc
    from dap.pseudo_boxes import CamClassifier

    if device == "cpu":
        tune_malloc()
    cam_classifier = CamClassifier(classifier(network, device))
    cam_classifier.speed_up()
    return cam_classifier.features_with(autocast)


def forward_seconds(forward: Callable[[torch.Tensor], torch.Tensor], batches: list) -> float:
    """Measure the seconds of the network alone, after a warm-up.

    The warm-up has one batch of each shape on a GPU, and three batches on a CPU.
    """
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
    """Timing of a run of Step 2 in the first process; others only have ``writing``.

    Attributes:
        seconds: Time from the start of the first image to the end of the last one.
        steady: Images per second without the first quarter of the images, in which processes
            start. It includes them if the quarter is smaller than a window of a GPU, whose images
            are finished together.
        writing: Time to write the shards, in seconds.
        mean_batch: Mean number of images per batch; 0 if images are computed one by one.
    """

    seconds: float
    steady: float
    writing: float
    mean_batch: float


def run_step2(
    network: str,
    data: ClassFolderImages,
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
        execution: Settings, with ``keep_going``, because boxes of random weights fail the check.
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
    Pipeline.mean_batch = watched_mean  # type: ignore[assignment, method-assign]
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
    """Watcher that records the start of a run and the time of each image, in the first process."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.times: list[float] = []

    def start(self, images: int, already_done: int, loader: object) -> None:
        """Record the start."""
        self.begin = time.perf_counter()

    def image_done(self, entry: object, record: object, classifier: object) -> None:
        """Record the time of an image."""
        self.times.append(time.perf_counter())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
