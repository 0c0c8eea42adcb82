"""The maps of a window of images, batched by shape; and the boxes of each image from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from dap.cam import (
    BatchMaps,
    ScaleMaps,
    batch_maps,
    box_candidates,
    flips_by_side,
    merge_scales,
    padded_size,
    resized_size,
)
from dap.cam.boxes import is_constant

from .classifier import CamClassifier
from .images import Entry, Sample
from .merging import FLAT, NO_LABEL, NOTHING_ABOVE, merged_boxes, rounded
from .settings import PseudoBoxSettings

# A dying device has an error of its own since torch 2.8.
FATAL = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


class ImageMaps(NamedTuple):
    """What the boxes of an image are computed from, on the CPU.

    Attributes:
        entry: Which image.
        size_hw: Its height and width in pixels.
        scales: Maps (F, L, h, w), stride and resized size per scale, as :class:`ScaleMaps`.
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


class Batch(NamedTuple):
    """Images whose views have one padded size, at one scale.

    Attributes:
        images: Which of the window.
        scale: Which of the scales, largest first.
    """

    images: list[int]
    scale: int


class WindowMaps:
    """The maps of some images, computed on the device and fetched later.

    Images whose views have one padded size go through the network together. Which they are
    follows from the images of the window alone, so that no number of processes changes a bit.

    Args:
        samples: The images.
        classifier: In evaluation mode.
        settings: Views and rule.
        batch_size: Images at a time; each is there with all its flips.
        pool: Threads that compute one batch each; None for this thread alone.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classifier: CamClassifier,
        settings: PseudoBoxSettings,
        batch_size: int,
        pool: Executor | None = None,
    ) -> None:
        self.samples = samples
        self.errors = [sample.error for sample in samples]
        self._classifier, self._settings = classifier, settings
        self._scales = flips_by_side(settings.views)
        self._images = [
            None if sample.image is None else sample.image.to(classifier.device, non_blocking=True)
            for sample in samples
        ]
        parts = (map if pool is None else pool.map)(self._computed, self._batches(batch_size))
        self._parts: list[tuple[Batch, BatchMaps]] = [part for own in parts for part in own]
        del self._images
        self._send()

    def _batches(self, batch_size: int) -> list[Batch]:
        batches = []
        for scale, (side, _) in enumerate(self._scales):
            by_size: dict[tuple[int, int], list[int]] = {}
            for i, image in enumerate(self._images):
                if image is not None:
                    size = padded_size((image.shape[1], image.shape[2]), side)
                    by_size.setdefault(size, []).append(i)
            for group in by_size.values():
                cuts = range(0, len(group), batch_size)
                batches += [Batch(group[start : start + batch_size], scale) for start in cuts]
        return batches

    @torch.inference_mode()
    def _computed(self, batch: Batch) -> list[tuple[Batch, BatchMaps]]:
        """Compute a batch; when it fails, each of its images alone, to find the one at fault."""
        side, flips = self._scales[batch.scale]
        try:
            found = batch_maps(
                [cast(Tensor, self._images[i]) for i in batch.images],
                side,
                flips,
                self._classifier.features_with(self._settings.autocast),
                self._classifier.weight,
                [torch.as_tensor(self.samples[i].entry.labels) for i in batch.images],
                self._classifier.normalize,
            )
        except FATAL:
            raise
        except (RuntimeError, AssertionError) as error:
            if len(batch.images) > 1:
                alone = [self._computed(Batch([i], batch.scale)) for i in batch.images]
                return [part for own in alone for part in own]
            self.errors[batch.images[0]] = f"{type(error).__name__}: {error}"
            return []
        return [(batch, found)]

    @torch.inference_mode()
    def _send(self) -> None:
        """Start the copy of all maps, and of the classes with the largest logits, to the CPU."""
        classifier = self._classifier
        logits = torch.zeros(len(self.samples), classifier.num_classes, device=classifier.device)
        for batch, found in self._parts:
            rows = torch.tensor(batch.images).to(classifier.device, non_blocking=True)
            logits.index_add_(0, rows, found.pooled @ classifier.weight.float().T)
        views = sum(len(flips) for _, flips in self._scales)
        self._top = (logits + views * classifier.bias.float()).argmax(dim=1)
        flat = [found.maps.flatten() for _, found in self._parts]
        self._flat = torch.cat(flat) if flat else torch.zeros(0)
        self._event = None
        if classifier.device.type == "cuda":
            self._top, self._flat = _pinned_copy(self._top), _pinned_copy(self._flat)
            self._event = torch.cuda.Event()
            self._event.record()

    def fetch(self) -> list[ImageMaps]:
        """Wait for the maps; give them image by image."""
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

    def _size(self, i: int) -> tuple[int, int]:
        image = self.samples[i].image
        return (0, 0) if image is None else (image.shape[1], image.shape[2])


def image_record(image: ImageMaps, settings: PseudoBoxSettings) -> dict[str, Any]:
    """Find the boxes of one image; say why where there are none.

    Returns:
        What :meth:`dap.pseudo_boxes.writing.StoreWriter.write` takes, without ``id``.
    """
    name = {"file_name": image.entry.file_name}
    if image.error is not None:
        return {**name, "reason": image.error}
    scales = [
        ScaleMaps(torch.from_numpy(maps), stride, size_hw) for maps, stride, size_hw in image.scales
    ]
    merged = merge_scales(scales, image.size_hw, settings.rule)
    maps = merged.maps.numpy()
    if not np.isfinite(maps).all():
        return {**name, "reason": "FloatingPointError: the activation map is NaN or infinite"}
    labels = image.entry.labels.tolist()
    grid = merged.cell_size, image.size_hw
    found = [
        (label, rounded(box_candidates(cam, settings.thresholds, settings.rule, *grid)))
        for label, cam in zip(labels, maps, strict=True)
    ]
    record = {
        **name,
        "height": image.size_hw[0],
        "width": image.size_hw[1],
        **merged_boxes(found, settings),
        "top1": image.top in labels,
    }
    if not record["boxes"]:
        flat = all(is_constant(cam) for cam in maps)
        record["reason"] = NO_LABEL if not labels else FLAT if flat else NOTHING_ABOVE
    return record


def window_records(
    images: Sequence[ImageMaps], settings: PseudoBoxSettings
) -> list[tuple[ImageMaps, dict[str, Any]]]:
    """Records of the images of a window, each with its image, the maps left out."""
    return [(image._replace(scales=[]), image_record(image, settings)) for image in images]


def windows(
    samples: Iterator[Sample], sizes: Sequence[int], count: int, max_bytes: int
) -> Iterator[tuple[list[Sample], bool]]:
    """Cut a stream of samples into windows that cross no end of a shard.

    Args:
        samples: The images of all shards, in order.
        sizes: Number of images of each shard.
        count: Images per window at most.
        max_bytes: Bytes of decoded images per window; one that goes beyond ends it.

    Yields:
        The images, and whether they are the last of their shard.
    """
    for size in sizes:
        left = size
        while left:
            window: list[Sample] = []
            held = 0
            while left and len(window) < count and held < max_bytes:
                window.append(next(samples))
                left -= 1
                image = window[-1].image
                held += 0 if image is None else image.numel()
            yield window, left == 0


def _pinned_copy(values: Tensor) -> Tensor:
    return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
