"""The maps of a window on a GPU: values, precision, page-locked memory, and no waiting."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmpretrain.datasets import CustomDataset
from runs import DEVICE, NEEDS_GPU

from dap.devices import computing_on
from dap.images.labelled_images import Entry, LabelledImages, Sample
from dap.images.reading import read_in_order
from dap.pseudo_boxes import CamClassifier, PseudoBoxSettings, build_classifier
from dap.pseudo_boxes.batched_maps import BatchLimit, WindowMaps
from dap.pseudo_boxes.classifier import evaluating
from tests.support.zoo import save_random_weights

pytestmark = NEEDS_GPU
SIDES = (64, 128)
CLASSES = 50
SIZES = [(70, 90), (90, 70), (70, 90), (96, 96), (70, 90), (60, 200)]


@pytest.fixture
def checkpoint(zoo, tmp_path):
    """Of a classifier of fifty classes."""
    config = zoo.config()
    config.merge_from_dict({"model.head.num_classes": CLASSES})
    return config, str(save_random_weights(config, tmp_path / "fifty.pth"))


def sample(number, labels):
    generator = torch.Generator().manual_seed(number)
    size_hw = SIZES[number % len(SIZES)]
    image = torch.randint(0, 256, (3, *size_hw), generator=generator, dtype=torch.uint8)
    entry = Entry(f"{number}.png", f"{number}.png", np.atleast_1d(labels))
    return Sample(entry, image, None)


def one_label(count=12):
    return [sample(i, i % CLASSES) for i in range(count)]


def many_labels():
    return [sample(0, np.arange(40)), sample(1, [3]), sample(2, np.arange(7, 47)), sample(3, [])]


@contextmanager
def computing(checkpoint, device, tf32=False):
    """The classifier on a device as a run has it."""
    classifier = CamClassifier(build_classifier(*checkpoint)[0].to(device))
    with computing_on(classifier.device, tf32), evaluating(classifier.model):
        classifier.speed_up()
        yield classifier


def maps_of(checkpoint, samples, device, autocast=None, tf32=False):
    settings = PseudoBoxSettings(SIDES, autocast=autocast)
    with computing(checkpoint, device, tf32) as classifier:
        return WindowMaps(samples, classifier, settings, BatchLimit(8, max(SIDES))).fetch()


def pairs_of_maps(found, expected):
    for image, on_cpu in zip(found, expected, strict=True):
        assert image.error is None
        assert len(image.scales) == len(on_cpu.scales) == len(SIDES)
        for (maps, *grid), (expected_maps, *expected_grid) in zip(
            image.scales, on_cpu.scales, strict=True
        ):
            assert grid == expected_grid
            assert maps.dtype == np.float32
            yield maps, expected_maps


@pytest.mark.parametrize("samples", [one_label, many_labels])
def test_maps_and_top_classes_are_those_of_the_cpu(checkpoint, samples):
    """Forty labels per image take one copy of the labels and one product per image."""
    found = maps_of(checkpoint, samples(), DEVICE)
    expected = maps_of(checkpoint, samples(), "cpu")
    for maps, expected_maps in pairs_of_maps(found, expected):
        largest = np.abs(expected_maps).max(initial=1e-6)
        np.testing.assert_allclose(maps / largest, expected_maps / largest, atol=2e-3)
    assert [image.top for image in found] == [image.top for image in expected]


@pytest.mark.parametrize(("autocast", "tf32"), [("bf16", True), ("fp16", True), (None, True)])
def test_lower_precision_changes_maps_little(checkpoint, autocast, tf32):
    found = maps_of(checkpoint, one_label(), DEVICE, autocast, tf32)
    expected = maps_of(checkpoint, one_label(), "cpu")
    for maps, expected_maps in pairs_of_maps(found, expected):
        assert np.isfinite(maps).all()
        assert np.abs(maps - expected_maps).max() <= 0.05 * np.abs(expected_maps).max()


@pytest.mark.parametrize("samples", [one_label, many_labels])
def test_nothing_waits_for_the_gpu_before_the_maps_are_fetched(checkpoint, samples):
    """torch raises an error where the main thread would wait."""
    settings = PseudoBoxSettings(SIDES)
    pinned = [one._replace(image=one.image.pin_memory()) for one in samples()]
    with computing(checkpoint, DEVICE) as classifier:
        WindowMaps(pinned, classifier, settings, BatchLimit(8, max(SIDES))).fetch()  # warm up
        torch.cuda.set_sync_debug_mode("error")
        try:
            maps = WindowMaps(pinned, classifier, settings, BatchLimit(8, max(SIDES)))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [image.error for image in maps.fetch()] == [None] * len(pinned)


def test_window_without_a_readable_image(checkpoint):
    samples = [one._replace(image=None, error="gone") for one in one_label(3)]
    found = maps_of(checkpoint, samples, DEVICE)
    assert [image.error for image in found] == ["gone"] * 3
    assert not any(image.readable or image.scales for image in found)


def test_many_windows_in_flight(checkpoint):
    """Page-locked memory of a window is not that of another whose copy is still to come."""
    settings = PseudoBoxSettings(SIDES)
    windows = [one_label(5 + i) for i in range(6)]
    with computing(checkpoint, DEVICE) as classifier:
        alone = [
            WindowMaps(window, classifier, settings, BatchLimit(8, max(SIDES))).fetch()
            for window in windows
        ]
        torch.cuda._sleep(1_000_000_000)  # cycles: the GPU is busy for half a second
        started = [
            WindowMaps(window, classifier, settings, BatchLimit(8, max(SIDES)))
            for window in windows
        ]
        together = [window.fetch() for window in started]
    for found, expected in zip(together, alone, strict=True):
        for maps, expected_maps in pairs_of_maps(found, expected):
            np.testing.assert_array_equal(maps, expected_maps)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_readers_give_page_locked_memory(zoo, num_workers):
    images = LabelledImages(CustomDataset(data_root=str(zoo.images)))
    indices = range(0, len(images), 3)
    found = list(read_in_order(images, indices, num_workers, pin_memory=True, ahead=30))
    assert len(found) == len(indices)
    for index, one in zip(indices, found, strict=True):
        assert one.image.is_pinned()
        assert torch.equal(one.image, images[index].image)


def test_page_locked_memory_is_not_filled_again_before_it_is_copied(zoo):
    """The GPU is busy, and the images are dropped as soon as their copies are asked for."""
    images = LabelledImages(CustomDataset(data_root=str(zoo.images)))
    indices = [*range(len(images))] * 3
    torch.cuda._sleep(2_000_000_000)
    copies = [
        one.image.to(DEVICE, non_blocking=True)
        for one in read_in_order(images, indices, 2, pin_memory=True, ahead=64)
    ]
    torch.cuda.synchronize()
    for index, copy in zip(indices, copies, strict=True):
        assert torch.equal(copy.cpu(), images[index].image)
