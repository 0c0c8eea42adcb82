"""How a detector's images are normalised, by its config or by the detector itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Normalization(NamedTuple):
    """What a data preprocessor does with pixels of 0 to 255.

    Attributes:
        mean: Subtracted, per channel after the swap; empty for none.
        std: Divided by.
        swaps: Whether the first and the last channel of the loaded image (BGR) are swapped first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    swaps: bool

    def __str__(self) -> str:
        """Write it as in a config."""
        order = "RGB (channels swapped)" if self.swaps else "BGR (channels as loaded)"
        if not self.mean:
            return f"{order}, pixels as they are"
        return f"{order}, mean={_short(self.mean)}, std={_short(self.std)}"

    def note(self) -> dict[str, Any]:
        """Give it as values of JSON."""
        return {"mean": [*self.mean], "std": [*self.std], "swaps": self.swaps}

    @classmethod
    def of_note(cls, note: Mapping[str, Any]) -> "Normalization":
        """Read what `note` gave."""
        return cls(_numbers(note["mean"]), _numbers(note["std"]), bool(note["swaps"]))

    def is_like(self, other: "Normalization") -> bool:
        """Say whether two normalisations are the same, up to rounded constants."""
        return self.swaps == other.swaps and all(
            len(mine) == len(theirs)
            and all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(mine, theirs, strict=True))
            for mine, theirs in ((self.mean, other.mean), (self.std, other.std))
        )


def normalization_of_config(model: Mapping[str, Any]) -> Normalization | None:
    """Read the normalisation out of a detector's config.

    Args:
        model: The ``model`` part.

    Returns:
        The normalisation, or None if the config has no ``data_preprocessor``.
    """
    holder = model
    while not isinstance(holder.get("data_preprocessor"), Mapping):
        if not isinstance(holder.get("detector"), Mapping):  # of a semi-supervised detector
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
    """Read the normalisation out of a detector.

    Args:
        detector: A detector of mmdet's or mmpretrain's kind.

    Returns:
        The normalisation, or None if the detector has no data preprocessor.
    """
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


def _short(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
