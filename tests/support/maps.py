"""Activation maps drawn in text or at random, and comparison of sets of boxes."""

import cv2
import numpy as np


def drawn(*rows: str) -> np.ndarray:
    """A map from rows of characters: '#' is 1, '.' is 0, '6' is .6; float64, shape (H, W)."""
    value = {"#": 1.0, ".": 0.0}
    return np.array([[value.get(c, int(c) / 10 if c.isdigit() else 0) for c in r] for r in rows])


def assert_same_set(boxes, expected, tolerance=1e-9, name=""):
    """Compare boxes, shape (N, 4), in any order: equal areas may stand either way."""
    expected = np.reshape(expected, (-1, 4))
    assert boxes.shape == expected.shape, name
    if len(expected):
        distance = abs(boxes[:, None] - expected[None]).max(axis=2)
        assert distance.min(axis=0).max() <= tolerance, name
        assert distance.min(axis=1).max() <= tolerance, name


def clouds(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Smooth colour noise: components that split and shrink with the threshold."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
