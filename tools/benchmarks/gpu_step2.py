"""Step 2 on a device: images per second, relative to the network alone, and time per part."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_rows import GOAL, Options, Report, Row, peak_memory, wait
from step2_parts import (
    SIDES,
    ClassFolderImages,
    classifier,
    fast_forward,
    forward_seconds,
    run_step2,
    view_batches,
)

PROFILED = 256  # images
TYPICAL = [(18, 24), (9, 12)]  # cells of the map of an image of 4:3 per scale, at stride 32


def speed(options: Options, report: Report, autocast: str | None = "bf16") -> None:
    """Measure Step 2 from files to store, and the network alone on batches of the same shapes."""
    from dap.devices import computing_on
    from dap.pseudo_boxes import Execution

    network, batch = ("tiny", 4) if options.quick else ("r50", 32)
    count = 16 if options.quick else 16384 if autocast else 8192
    num_alone = min(count, 2048)
    device = torch.device("cuda:0" if options.device == "cuda" else options.device)
    with computing_on(device, True):
        batches = view_batches(ClassFolderImages(options.images, num_alone), options.device, batch)
        alone = num_alone / forward_seconds(
            fast_forward(network, options.device, autocast), batches
        )
        mean = sum(len(views) / 2 for views in batches) / len(batches)
    del batches
    report(Row("the network alone", f"{alone:.0f} images/s, {mean:.1f} images per batch"))
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    execution = Execution(options.workers, batch_size=batch, keep_going=True)
    with tempfile.TemporaryDirectory() as out:
        data = ClassFolderImages(options.images, count)
        run = run_step2(network, data, options.device, out, execution, autocast)
    rate = count / run.seconds
    report(Row("Step 2 from files to store", f"{rate:.0f} images/s; the goal is {GOAL}"))
    report(Row("without the first quarter", f"{run.steady:.0f} images/s"))
    shares = f"{rate / alone:.2f}, without the first quarter {run.steady / alone:.2f}"
    report(Row("share of the network alone", shares))
    report(Row("mean batch", f"{run.mean_batch:.1f} images"))
    report(Row("writing", f"{run.writing / run.seconds:.2%} of the time"))
    report(Row("memory", peak_memory()))


def profile(options: Options, report: Report) -> None:
    """Measure milliseconds per image of each part separately."""
    from dap.devices import computing_on
    from dap.images.labelled_images import LabelledImages
    from dap.pseudo_boxes import CamClassifier

    network, count = ("tiny", 8) if options.quick else ("r50", PROFILED)
    images = LabelledImages(ClassFolderImages(options.images, count))
    cam_classifier = CamClassifier(classifier(network, options.device))
    cam_classifier.speed_up()

    def part(name: str, milliseconds: float, processes: int = 1) -> None:
        rate = 1000 * processes / milliseconds
        among = f" with {processes} processes" if processes > 1 else ""
        report(Row(name, f"{milliseconds:.3f} ms per image, {rate:.0f} images/s{among}"))

    with computing_on(cam_classifier.device, True), torch.inference_mode():
        begin = time.perf_counter()
        samples = [images[i] for i in range(count)]
        part("decode, in a process", since(begin, count), options.workers)
        reading(options, report)
        if options.device == "cuda":  # as the reading processes return them
            samples = [
                sample._replace(image=None if sample.image is None else sample.image.pin_memory())
                for sample in samples
            ]
        pixels = [sample.image for sample in samples if sample.image is not None]
        copied = copy_to(pixels, cam_classifier.device)
        part("copy to the device", best(lambda: copy_to(pixels, cam_classifier.device), count))
        part("resize, normalise, pad", best(lambda: resize(copied, cam_classifier), count))
        forward = cam_classifier.features_with("bf16" if options.device == "cuda" else None)
        batches = view_batches(ClassFolderImages(options.images, count), options.device, 32)
        part("forward", forward_seconds(forward, batches) * 1000 / count)
        features = [
            torch.rand(
                64, cam_classifier.weight.shape[1], *size, device=cam_classifier.device
            ).contiguous(memory_format=torch.channels_last)
            for size in TYPICAL
        ]
        part("maps and pooled features", best(lambda: maps(cam_classifier, features), 32))
        window(samples, cam_classifier, part, options)
    report(Row("memory", peak_memory()))


def copy_to(images: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Copy images to a device asynchronously."""
    return [image.to(device, non_blocking=True) for image in images]


def reading(options: Options, report: Report) -> None:
    """Measure all reading processes together, with page-locked memory if there is a GPU."""
    from dap.images.labelled_images import LabelledImages
    from dap.images.reading import read_in_order

    count = 32 if options.quick else 4096
    images = LabelledImages(ClassFolderImages(options.images, count))
    stream = read_in_order(images, range(count), options.workers, pin_memory=True, ahead=2048)
    half = count // 2
    for _ in range(half):
        next(stream)
    begin = time.perf_counter()
    remaining = sum(1 for _ in stream)
    rate = remaining / (time.perf_counter() - begin)
    report(Row("reading, all processes", f"{rate:.0f} images/s with {options.workers} processes"))


def resize(images: list[torch.Tensor], cam_classifier: Any) -> None:
    """Make the views of all images, in batches of 32 with the same padded size."""
    from dap.cam import padded_size
    from dap.cam.batches import padded_views

    for side in SIDES:
        groups: dict[tuple[int, int], list[torch.Tensor]] = {}
        for image in images:
            size = padded_size((image.shape[1], image.shape[2]), side)
            groups.setdefault(size, []).append(image)
        for group in groups.values():
            for start in range(0, len(group), 32):
                padded_views(group[start : start + 32], side, cam_classifier.normalize)


def maps(cam_classifier: Any, features: list[torch.Tensor]) -> None:
    """Compute maps of 32 images and their mirror images from features, and mean features."""
    from dap.cam import class_activation_map

    for scale in features:
        class_activation_map(scale, cam_classifier.weight, torch.arange(64) % 1000)
        scale.mean(dim=(2, 3))


def window(samples: list, cam_classifier: Any, part: Callable[..., None], options: Options) -> None:
    """Measure a whole window: until the work is queued, until the maps are ready, and the boxes."""
    from dap.pseudo_boxes import PseudoBoxSettings
    from dap.pseudo_boxes.batched_maps import BatchLimit, WindowMaps
    from dap.pseudo_boxes.records import window_records

    settings = PseudoBoxSettings(autocast="bf16" if options.device == "cuda" else None)
    for _ in range(2):
        wait()
        begin = time.perf_counter()
        started = WindowMaps(samples, cam_classifier, settings, BatchLimit(32, max(SIDES)))
        queued = since(begin, len(samples), waiting=False)
        maps_of_window = started.fetch()
        whole = since(begin, len(samples))
    part("main thread until all is queued", queued)
    part("all parts on the device, to the maps", whole)
    begin = time.perf_counter()
    window_records(maps_of_window, settings)
    part("boxes, in a process", since(begin, len(samples)), max(1, options.workers // 4))


def best(function: Callable[[], object], count: int) -> float:
    """Milliseconds per image, the better of two calls after a warm-up call."""
    taken = []
    for _ in range(3):
        wait()
        begin = time.perf_counter()
        function()
        taken.append(since(begin, count))
    return min(taken[1:])


def since(begin: float, count: int, waiting: bool = True) -> float:
    """Milliseconds per image since a time."""
    if waiting:
        wait()
    return (time.perf_counter() - begin) * 1000 / count
