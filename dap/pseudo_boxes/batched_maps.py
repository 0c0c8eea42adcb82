"""Computing the maps of a window of images in batches of equal shape."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from dap.cam import (
    PAD_MULTIPLE,
    BatchMaps,
    MergedCam,
    Rule,
    ScaleMaps,
    Side,
    batch_maps,
    flips_by_side,
    merge_scales,
    padded_size,
    resized_size,
)
from dap.devices import DEVICE_ERRORS, is_out_of_memory
from dap.images.labelled_images import Entry, Sample

from .classifier import CamClassifier
from .settings import PseudoBoxSettings


class ImageMaps(NamedTuple):
    """Maps of an image on the CPU, from which its boxes are computed.

    Attributes:
        entry: The image.
        size_hw: Height and width of the image in pixels.
        scales: Maps (F, L, h, w), stride and resized size per scale, as in :class:`ScaleMaps`.
        top: The class with the largest logit.
        error: Why there are no maps, or None.
        readable: Whether the file could be read.
    """

    entry: Entry
    size_hw: tuple[int, int]
    scales: list[tuple[np.ndarray, tuple[float, float], tuple[int, int]]]
    top: int
    error: str | None
    readable: bool

    def merged(self, rule: Rule) -> MergedCam:
        """Merge the maps of all scales.

        Raises:
            FloatingPointError: If a map is not finite.
        """
        scales = [
            ScaleMaps(torch.from_numpy(maps), stride, size_hw)
            for maps, stride, size_hw in self.scales
        ]
        merged = merge_scales(scales, self.size_hw, rule)
        if not merged.maps.isfinite().all():
            raise FloatingPointError("the activation map is NaN or infinite")
        return merged


class Batch(NamedTuple):
    """Images whose views have the same padded size, at one scale.

    Attributes:
        images: Indices of the images in the window.
        scale: Index of the scale, the largest first.
    """

    images: list[int]
    scale: int


class BatchLimit:
    """Limits the images of a batch by their pixels; the limit is lowered when memory runs out.

    Args:
        images: Number of 4:3 images at the largest scale; 1 for one image at a time, whatever its
            size.
        short_side: Short side of the largest scale in pixels, or the size of all images.
        multiple: The sides of padded views are multiples of this number of pixels.

    Attributes:
        images: The argument.
    """

    def __init__(self, images: int, short_side: Side, multiple: int = PAD_MULTIPLE) -> None:
        self.images = images
        height, width = padded_size((3, 4), short_side, multiple)
        self._pixels = float(images * height * width)

    def of(self, size_hw: tuple[int, int]) -> int:
        """Return how many images of padded size ``size_hw`` make a batch, at least 1."""
        return 1 if self.images == 1 else max(1, int(self._pixels / (size_hw[0] * size_hw[1])))

    def lower(self, images: int, size_hw: tuple[int, int]) -> None:
        """Lower the limit to half of the number of images for which memory ran out."""
        self._pixels = min(self._pixels, images * size_hw[0] * size_hw[1] / 2)


class WindowMaps:
    """The maps of some images, computed on the device and fetched later.

    Images whose views have the same padded size go through the network in one batch. The batches
    depend on the images of the window only, so they are the same for any number of processes.

    Args:
        samples: The images.
        classifier: The classifier, in evaluation mode.
        settings: Views and rule.
        limit: Limit of the images of a batch.
        pool: Threads that compute one batch each; None to use this thread only.

    Attributes:
        batches: Number of computed batches.
        batched_images: Number of images in them; an image counts once per scale.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classifier: CamClassifier,
        settings: PseudoBoxSettings,
        limit: BatchLimit,
        pool: Executor | None = None,
    ) -> None:
        self.samples = samples
        self.errors = [sample.error for sample in samples]
        self._classifier, self._settings, self._limit = classifier, settings, limit
        self._scales = flips_by_side(classifier.views(settings))
        parts = (map if pool is None else pool.map)(self._compute, self._batches())
        self._parts: list[tuple[Batch, BatchMaps]] = list(chain.from_iterable(parts))
        self.batches = len(self._parts)
        self.batched_images = sum(len(batch.images) for batch, _ in self._parts)
        self._start_copy()

    def _batches(self) -> Iterator[Batch]:
        """Divide the images into batches by padded size; the limit may be lowered meanwhile."""
        for scale, (side, _) in enumerate(self._scales):
            by_size: dict[tuple[int, int], list[int]] = {}
            for i, sample in enumerate(self.samples):
                if sample.image is not None:
                    by_size.setdefault(self._padded_size(i, side), []).append(i)
            for size_hw, group in by_size.items():
                start = 0
                while start < len(group):
                    end = start + self._limit.of(size_hw)
                    yield Batch(group[start:end], scale)
                    start = end

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> list[tuple[Batch, BatchMaps]]:
        """Compute a batch; divide it if memory runs out, or to find the image that fails."""
        try:
            return [(batch, self._maps_of(batch))]
        except (RuntimeError, AssertionError) as error:
            too_large = is_out_of_memory(error)
            if isinstance(error, DEVICE_ERRORS) and not too_large:
                raise
            if len(batch.images) == 1:
                if too_large:
                    raise self._out_of_memory(batch.images[0], error) from error
                self.errors[batch.images[0]] = f"{type(error).__name__}: {error}"
                return []
        # Outside of the except block, since the exception keeps the tensors of the attempt alive.
        if too_large:
            self._lower_limit(batch)
            parts = [batch.images[: len(batch.images) // 2], batch.images[len(batch.images) // 2 :]]
        else:
            parts = [[i] for i in batch.images]
        if self._classifier.device.type == "cuda":
            torch.cuda.empty_cache()  # the parts need blocks of other sizes
        return [item for part in parts for item in self._compute(Batch(part, batch.scale))]

    def _maps_of(self, batch: Batch) -> BatchMaps:
        side, flips = self._scales[batch.scale]
        device = self._classifier.device
        images = [cast(Tensor, self.samples[i].image) for i in batch.images]
        return batch_maps(
            [image.to(device, non_blocking=True) for image in images],
            side,
            flips,
            self._classifier.view_maps(self._settings.autocast),
            [torch.as_tensor(self.samples[i].entry.labels) for i in batch.images],
            self._classifier.normalize,
            self._classifier.pad_multiple,
            self._settings.rule,
        )

    def _lower_limit(self, batch: Batch) -> None:
        images = len(batch.images)
        side = self._scales[batch.scale][0]
        self._limit.lower(images, self._padded_size(batch.images[0], side))
        print_log(
            f"the device has too little memory for {images} images of short side {side} at a "
            f"time: from now on half as many are computed. Set a smaller --batch-size than "
            f"{self._limit.images} to avoid the attempt",
            "current",
            logging.WARNING,
        )

    def _out_of_memory(self, i: int, error: Exception) -> Exception:
        height, width = self._size(i)
        return torch.OutOfMemoryError(
            f"the device has too little memory even for one image ({width} x {height} px: "
            f"{self.samples[i].entry.path}). A smaller --batch-size does not help: free the device "
            "of other processes, use --autocast bf16, or set smaller pseudo_boxes.short_sides. "
            f"{error}"
        )

    @torch.inference_mode()
    def _start_copy(self) -> None:
        """Start to copy all maps, and the class with the largest logit per image, to the CPU."""
        classifier = self._classifier
        logits = torch.zeros(len(self.samples), classifier.num_classes, device=classifier.device)
        for batch, maps in self._parts:
            rows = torch.tensor(batch.images).to(classifier.device, non_blocking=True)
            flips = len(self._scales[batch.scale][1])
            logits.index_add_(0, rows, classifier.logits(maps.pooled, flips))
        self._top = logits.argmax(dim=1)
        flat = [maps.maps.flatten() for _, maps in self._parts]
        self._flat = torch.cat(flat) if flat else torch.zeros(0)
        self._event = None
        if classifier.device.type == "cuda":
            self._top, self._flat = _pinned_copy(self._top), _pinned_copy(self._flat)
            self._event = torch.cuda.Event()
            self._event.record()

    def fetch(self) -> list[ImageMaps]:
        """Wait until the maps are copied, and return them per image."""
        if self._event is not None:
            self._event.synchronize()
        scales: list[list[Any]] = [[] for _ in self.samples]
        flat, start = self._flat.numpy(), 0
        for batch, part in self._parts:
            maps = flat[start : start + part.maps.numel()].reshape(part.maps.shape)
            start += part.maps.numel()
            row = 0
            for i in batch.images:
                labels = len(self.samples[i].entry.labels)
                resized = resized_size(self._size(i), self._scales[batch.scale][0])
                scales[i].append((maps[:, row : row + labels], part.stride, resized))
                row += labels
        top = self._top.tolist()
        return [
            ImageMaps(
                sample.entry, self._size(i), scales[i], top[i], self.errors[i],
                sample.image is not None,
            )
            for i, sample in enumerate(self.samples)
        ]  # fmt: skip

    def _padded_size(self, i: int, side: Side) -> tuple[int, int]:
        return padded_size(self._size(i), side, self._classifier.pad_multiple)

    def _size(self, i: int) -> tuple[int, int]:
        image = self.samples[i].image
        return (0, 0) if image is None else (image.shape[1], image.shape[2])


def _pinned_copy(values: Tensor) -> Tensor:
    return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
