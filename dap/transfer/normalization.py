"""Normalisation of a detector's images, read from its config or from the detector."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn


class Normalization(NamedTuple):
    """Normalisation of pixels from 0 to 255 by a data preprocessor.

    Attributes:
        mean: Mean per channel, after the swap; empty for no normalisation.
        std: Standard deviation per channel.
        swaps: Whether the first and last channel of the loaded image (BGR) are swapped before.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    swaps: bool

    def __str__(self) -> str:
        """Format as in a config."""
        order = "RGB (channels swapped)" if self.swaps else "BGR (channels as loaded)"
        if not self.mean:
            return f"{order}, pixels as they are"
        mean, std = (", ".join(f"{value:g}" for value in v) for v in (self.mean, self.std))
        return f"{order}, mean=[{mean}], std=[{std}]"

    def note(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {"mean": [*self.mean], "std": [*self.std], "swaps": self.swaps}

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "Normalization":
        """Make the object from the result of `note`."""
        return cls(_numbers(note["mean"]), _numbers(note["std"]), bool(note["swaps"]))

    def is_like(self, other: "Normalization") -> bool:
        """Whether two normalisations are equal, up to rounding of the constants."""
        return self.swaps == other.swaps and all(
            len(first) == len(second) and np.allclose(first, second, rtol=1e-3, atol=0)
            for first, second in ((self.mean, other.mean), (self.std, other.std))
        )


def normalization_of_config(model: Mapping[str, Any]) -> Normalization | None:
    """Read the normalisation from the ``model`` part of a config; None without a preprocessor."""
    holder = model
    while not isinstance(holder.get("data_preprocessor"), Mapping):
        if not isinstance(holder.get("detector"), Mapping):  # part of a semi-supervised detector
            return None
        holder = holder["detector"]
    preprocessor = holder["data_preprocessor"]
    while isinstance(preprocessor.get("data_preprocessor"), Mapping):  # MultiBranchDataPreprocessor
        preprocessor = preprocessor["data_preprocessor"]
    flags = ("bgr_to_rgb", "rgb_to_bgr", "to_rgb")
    return Normalization(
        _numbers(preprocessor.get("mean")),
        _numbers(preprocessor.get("std")),
        any(bool(preprocessor.get(flag)) for flag in flags),
    )


def normalization_of_detector(detector: nn.Module) -> Normalization | None:
    """Read the normalisation from a model of mmdet or mmpretrain; None without a preprocessor."""
    preprocessor = getattr(detector, "data_preprocessor", None)
    while (inner := getattr(preprocessor, "data_preprocessor", None)) is not None:
        preprocessor = inner
    if preprocessor is None:
        return None
    flags = ("_channel_conversion", "to_rgb")
    return Normalization(
        _numbers(getattr(preprocessor, "mean", None)),
        _numbers(getattr(preprocessor, "std", None)),
        any(bool(getattr(preprocessor, flag, False)) for flag in flags),
    )


def _numbers(values: Tensor | Sequence[float] | None) -> tuple[float, ...]:
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    return tuple(float(value) for value in values or ())
