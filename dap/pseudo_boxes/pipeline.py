"""From images to their boxes: reading, maps and boxes, computed concurrently."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import cv2
import torch

from dap.cam import flips_by_side
from dap.images.labelled_images import LabelledImages, Sample
from dap.images.reading import read_in_order
from dap.images.reading_worker import end_with_parent
from dap.runs.execution import Execution
from dap.runs.store_run import Computed

from .batched_maps import BatchLimit, ImageMaps, WindowMaps
from .classifier import CamClassifier
from .records import window_records
from .settings import PseudoBoxSettings

WINDOW_CPU, WINDOW_GPU = 32, 2048  # images among which batches of equal shape are formed
WINDOW_BYTES = 3 << 29  # decoded images of a window; 2048 of ImageNet take 1.1 GB on average
AHEAD = 4  # windows whose boxes are being computed while the device continues
T = TypeVar("T")


class Pipeline:
    """Computes the records of images: boxes, or the reason why there are none.

    Args:
        images: The data set.
        classifier: The classifier, in evaluation mode, on the device to use.
        settings: Settings of Step 2.
        execution: Workers, batch size and timeout.

    Attributes:
        window: Number of images among which batches of equal shape are formed.
        one_by_one: Whether each image is computed separately, so that its bits do not depend on
            other images.
        images_done: Number of images computed so far, each counted once per scale.
        batches_done: Number of batches computed so far.
    """

    def __init__(
        self,
        images: LabelledImages,
        classifier: CamClassifier,
        settings: PseudoBoxSettings,
        execution: Execution,
    ) -> None:
        self.images, self.classifier, self.settings = images, classifier, settings
        self.on_gpu = classifier.device.type == "cuda"
        self.window = WINDOW_GPU if self.on_gpu else WINDOW_CPU
        self.limit = BatchLimit(
            execution.batch_size or (32 if self.on_gpu else 1),
            flips_by_side(classifier.views(settings))[0][0],
            classifier.pad_multiple,
        )
        self.one_by_one = self.limit.images == 1
        self.images_done = self.batches_done = 0
        self._timeout = execution.read_timeout
        self._workers = execution.workers(self.on_gpu)

    def records(self, groups: Sequence[Sequence[int]]) -> Iterator[Computed]:
        """Compute the boxes of some groups of images, in order.

        Args:
            groups: Indices of images; images of one group are batched together.
        """
        if not self.on_gpu:
            for window in self.maps(groups):
                yield from window_records(window, self.settings)
            return
        # Other processes compute the boxes while the GPU computes the maps of later windows.
        with box_processes(max(1, self._workers // 4)) as processes:
            futures = (
                processes.submit(window_records, window, self.settings)
                for window in self.maps(groups)
            )
            for future in _delayed(futures, AHEAD):
                yield from future.result()

    def maps(self, groups: Sequence[Sequence[int]]) -> Iterator[list[ImageMaps]]:
        """Compute the maps of some groups of images, in order, per window.

        On a GPU, the maps of a window are copied while those of the next window are computed.

        Args:
            groups: Indices of images; images of one group are batched together.
        """
        indices = list(chain.from_iterable(groups))
        samples = read_in_order(
            self.images,
            indices,
            self._workers,
            self._timeout,
            pin_memory=self.on_gpu,
            # A GPU queues only some thousand kernels, those of a few batches, so that submitting a
            # window takes nearly as long as computing it. Meanwhile the next window is read.
            ahead=self.window if self.on_gpu else 0,
        )
        sizes = [len(group) for group in groups]
        sample_windows = _windows(samples, sizes, self.window, WINDOW_BYTES)
        if self.on_gpu:
            started = (self._maps(window) for window in sample_windows)
            yield from (maps.fetch() for maps in _delayed(started, 1))
            return
        # One thread per image is faster than several threads per image, with the same bits.
        with ThreadPoolExecutor(torch.get_num_threads(), initializer=_single_threaded) as pool:
            for window in sample_windows:
                yield self._maps(window, pool).fetch()

    def mean_batch(self) -> str:
        """Describe the mean size of the batches."""
        mean = self.images_done / max(1, self.batches_done)
        return f"{mean:.1f} images per batch on average"

    def _maps(self, window: list[Sample], pool: ThreadPoolExecutor | None = None) -> WindowMaps:
        maps = WindowMaps(window, self.classifier, self.settings, self.limit, pool)
        self.batches_done += maps.batches
        self.images_done += maps.batched_images
        return maps


def box_processes(count: int) -> ProcessPoolExecutor:
    """Create processes that compute boxes; they end with this process, even if it is killed."""
    return ProcessPoolExecutor(count, initializer=_start_box_process)


def _windows(
    samples: Iterator[Sample], sizes: Sequence[int], count: int, max_bytes: int
) -> Iterator[list[Sample]]:
    """Divide a stream of samples into windows; no window holds images of two groups.

    Args:
        samples: The images of all groups, in order.
        sizes: Number of images of each group.
        count: Maximum number of images per window.
        max_bytes: Bytes of decoded images after which a window ends.
    """
    for size in sizes:
        window: list[Sample] = []
        window_bytes = 0
        for sample in islice(samples, size):
            window.append(sample)
            window_bytes += 0 if sample.image is None else sample.image.numel()
            if len(window) == count or window_bytes >= max_bytes:
                yield window
                window, window_bytes = [], 0
        if window:
            yield window


def _delayed(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield items ``count`` steps late, to keep ``count`` of them in flight."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _single_threaded() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _start_box_process() -> None:
    end_with_parent()
    _single_threaded()
