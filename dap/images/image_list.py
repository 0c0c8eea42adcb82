"""File names and labels of all images of a run, in arrays that its processes share."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

_ARRAYS = ("names", "name_ends", "labels", "label_ends")


class NamesDigest:
    """Running hash of file names in order."""

    def __init__(self) -> None:
        self._names, self._lengths = hashlib.sha256(), hashlib.sha256()

    def update(self, names: bytes | memoryview, lengths: Sequence[int] | np.ndarray) -> None:
        """Add concatenated names, with the length of each name in bytes."""
        self._names.update(names)
        self._lengths.update(np.asarray(lengths, np.int64).tobytes())

    def hexdigest(self) -> str:
        """Return the hash of all names so far."""
        return hashlib.sha256(self._names.digest() + self._lengths.digest()).hexdigest()


class ImageList:
    """File names and labels of N images, in 20 bytes per image and the bytes of its name.

    Args:
        names: Bytes of all names, concatenated, uint8.
        name_ends: End of each name in ``names``, int64, shape (N + 1,); the first is 0.
        labels: Labels of all images, concatenated, int32.
        label_ends: End of the labels of each image, int64, shape (N + 1,); the first is 0.
    """

    def __init__(
        self, names: np.ndarray, name_ends: np.ndarray, labels: np.ndarray, label_ends: np.ndarray
    ) -> None:
        self._names, self._name_ends = names, name_ends
        self._labels, self._label_ends = labels, label_ends

    @classmethod
    def of(cls, images: Iterable[tuple[str, int | np.ndarray]]) -> ImageList:
        """Create from file names with one label each, or with distinct labels in ascending order.

        Raises:
            ValueError: If a label does not fit into 32 bits.
        """
        names, labels = bytearray(), array("i")
        name_ends, label_ends = array("q", [0]), array("q", [0])
        for name, image_labels in images:
            names += os.fsencode(name)
            name_ends.append(len(names))
            try:
                if isinstance(image_labels, int):
                    labels.append(image_labels)
                else:
                    labels.extend(image_labels.tolist())
            except OverflowError as error:
                raise ValueError(f"{name} has label {image_labels}: {error}") from error
            label_ends.append(len(labels))
        return cls(
            np.frombuffer(names, np.uint8),
            np.frombuffer(name_ends, np.int64),
            np.frombuffer(labels, np.int32),
            np.frombuffer(label_ends, np.int64),
        )

    def __len__(self) -> int:
        return len(self._name_ends) - 1

    def name(self, index: int) -> str:
        """Return the file name of an image."""
        start, end = self._name_ends[index : index + 2]
        return os.fsdecode(self._names[start:end].tobytes())

    def labels_of(self, index: int) -> np.ndarray:
        """Return the labels of an image, int64, shape (L,)."""
        start, end = self._label_ends[index : index + 2]
        return self._labels[start:end].astype(np.int64)

    def first_outside(self, num_classes: int) -> int | None:
        """Return the index of the first image with a label outside [0, num_classes), or None."""
        outside = np.flatnonzero((self._labels < 0) | (self._labels >= num_classes))
        if not len(outside):
            return None
        return int(self._label_ends.searchsorted(outside[0], side="right")) - 1

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of names and labels, and that of the names only."""
        names = NamesDigest()
        names.update(self._names.data, np.diff(self._name_ends))
        both = hashlib.sha256(names.hexdigest().encode())
        both.update(self._labels.data)
        both.update(self._label_ends.data)
        return {"list_sha256": both.hexdigest(), "names_sha256": names.hexdigest()}

    def save(self, path: Path) -> None:
        """Write the list as a safetensors file.

        Raises:
            OSError: If it cannot be written.
        """
        arrays = (self._names, self._name_ends, self._labels, self._label_ends)
        tensors = {
            name: torch.from_numpy(np.require(values, requirements="W"))
            for name, values in zip(_ARRAYS, arrays, strict=True)
        }
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> ImageList:
        """Memory-map a file written by :meth:`save`; processes of a machine share the memory."""
        with safe_open(path, framework="pt") as file:
            return cls(*(file.get_tensor(name).numpy() for name in _ARRAYS))
