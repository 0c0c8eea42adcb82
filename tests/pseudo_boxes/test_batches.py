"""Batches of images: how large, what happens when memory runs out, and several labels."""

import argparse
import multiprocessing
import os
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from dap.cam import batch_maps, class_activation_map, linear_maps, padded_size
from dap.images.labelled_images import Entry, Sample
from dap.pseudo_boxes import CamClassifier, PseudoBoxSettings, build_classifier
from dap.pseudo_boxes.batched_maps import BatchLimit, WindowMaps
from dap.pseudo_boxes.classifier import evaluating
from dap.pseudo_boxes.pipeline import box_processes
from dap.runs import options
from dap.runs.execution import default_workers
from tests.support.planted import MeanColours, model_config, planted_state
from tests.support.zoo import save_random_weights, zoo_config

SETTINGS = PseudoBoxSettings(short_sides=(64, 128))


@MODELS.register_module()
class SmallMemory(MeanColours):
    """A backbone whose device holds three images of 128 x 128 px, each with its mirror image."""

    pixels = 3 * 2 * 128 * 128
    sizes: list[int] = []  # noqa: RUF012

    def forward(self, images):
        self.sizes.append(len(images) // 2)
        if images[:, 0].numel() > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return super().forward(images)


def sample(size_hw, label=0, number=0):
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 256, (3, *size_hw), generator=generator, dtype=torch.uint8)
    return Sample(Entry(f"{number}.png", f"{number}.png", np.atleast_1d(label)), image, None)


def small_memory():
    model = MODELS.build(model_config(backbone={"type": "SmallMemory"}))
    model.load_state_dict(planted_state())
    classifier = CamClassifier(model)
    classifier.model.backbone.sizes.clear()
    return classifier


def maps_of(classifier, samples, limit):
    with evaluating(classifier.model):
        return WindowMaps(samples, classifier, SETTINGS, limit).fetch()


def test_batches_hold_pixels_not_images():
    """32 images of 4:3 at 576: as many pixels as 4 strips of 10:1, or 128 images at 288."""
    limit = BatchLimit(32, 576)
    assert limit.of(padded_size((375, 500), 576)) == 32
    assert limit.of(padded_size((500, 375), 576)) == 32
    assert limit.of(padded_size((375, 500), 288)) == 128
    assert limit.of(padded_size((100, 1000), 576)) == 4
    assert limit.of(padded_size((3, 4), 5760)) == 1


def test_batch_of_one_is_one_image_at_any_scale():
    limit = BatchLimit(1, 576)
    assert limit.of(padded_size((375, 500), 288)) == 1


def test_out_of_memory_halves_the_batch_and_goes_on(capsys):
    samples = [sample((96, 96), number=i) for i in range(8)]
    classifier = small_memory()
    found = maps_of(classifier, samples, BatchLimit(8, 128))
    sizes = classifier.model.backbone.sizes
    # The scale of 128 first: 8 are too many, so are 4; what comes then is cut to 2.
    assert sizes[:6] == [8, 4, 2, 2, 4, 2]
    assert "too little memory for 8 images" in (log := capsys.readouterr().out)
    assert "--batch-size than 8" in log
    alone = [maps_of(small_memory(), [one], BatchLimit(1, 128))[0] for one in samples]
    for one, other in zip(found, alone, strict=True):
        assert one.error is None
        for (maps, *grid), (expected, *expected_grid) in zip(one.scales, other.scales, strict=True):
            np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-4)
            assert grid == expected_grid


def test_lowered_limit_stays_for_the_windows_that_follow():
    limit = BatchLimit(8, 128)
    maps_of(small_memory(), [sample((96, 96), number=i) for i in range(8)], limit)
    classifier = small_memory()
    maps_of(classifier, [sample((96, 96), number=i) for i in range(8)], limit)
    assert max(classifier.model.backbone.sizes[:4]) == 2


def test_one_image_that_is_too_large_ends_the_run_and_names_the_options():
    with pytest.raises(torch.OutOfMemoryError) as stopped:
        maps_of(small_memory(), [sample((96, 900))], BatchLimit(4, 128))
    for words in ("0.png", "900 x 96 px", "--batch-size", "short_sides", "CUDA out of memory"):
        assert words in str(stopped.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        (RuntimeError, "GET was unable to find an engine to execute this computation"),
        (getattr(torch, "AcceleratorError", RuntimeError), "CUDA error: out of memory"),
    ],
)
def test_libraries_that_say_out_of_memory_in_words_count(monkeypatch, error, words):
    def failing(self, images):
        if len(images) > 2:
            raise error(words)
        return MeanColours.forward(self, images)

    classifier = small_memory()
    monkeypatch.setattr(type(classifier.model.backbone), "forward", failing)
    found = maps_of(classifier, [sample((96, 96), number=i) for i in range(4)], BatchLimit(4, 128))
    assert [image.error for image in found] == [None] * 4


def test_mean_batch_counts_each_scale():
    with evaluating((classifier := small_memory()).model):
        samples = [sample((64, 64), number=i) for i in range(4)]
        maps = WindowMaps(samples, classifier, SETTINGS, BatchLimit(2, 128))
    # Two of 128 x 192 are three of 128 x 128, hence 3 and 1; at 64 all four.
    assert (maps.batches, maps.batched_images) == (3, 8)


class TestSeveralLabels:
    """One product per image: no features are copied for each label."""

    def maps(self, labels, features):
        images = [torch.rand(3, 32, 32) for _ in labels]
        weight = torch.randn(50, features.shape[1], generator=torch.Generator().manual_seed(1))
        view_maps = partial(linear_maps, lambda _: features, weight)
        found = batch_maps(images, 32, (False, True), view_maps, labels)
        return found.maps, weight

    def test_equal_the_map_of_each_label(self):
        features = torch.randn(2 * 3, 8, 2, 4, generator=torch.Generator().manual_seed(0))
        labels = [torch.tensor([4, 7, 9]), torch.tensor([], dtype=torch.long), torch.tensor([49])]
        maps, weight = self.maps(labels, features)
        assert maps.shape == (2, 4, 2, 4)
        rows = [(0, 4), (0, 7), (0, 9), (2, 49)]
        for row, (image, label) in enumerate(rows):
            plain = class_activation_map(features[[image]], weight, torch.tensor([label]))[0]
            mirrored = class_activation_map(features[[3 + image]], weight, torch.tensor([label]))
            torch.testing.assert_close(maps[0, row], plain)
            torch.testing.assert_close(maps[1, row], mirrored[0].flip(-1))

    def test_take_no_memory_for_copies_of_the_features(self):
        """Forty labels: copies would take 40 times the features, 66 million numbers."""
        features = torch.randn(2 * 2, 512, 18, 24)
        labels = [torch.arange(40), torch.arange(40)]
        largest = []

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                result = func(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor):
                    largest.append(result.untyped_storage().nbytes())
                return result

        with Watch():
            self.maps(labels, features)
        assert max(largest) <= features.untyped_storage().nbytes()

    def test_label_out_of_range_is_refused(self):
        features = torch.randn(2, 8, 2, 4)
        with pytest.raises(ValueError, match=r"classes in \[0, 50\).*found 3 to 50"):
            self.maps([torch.tensor([3, 50])], features)

    def test_zoo_classifier_with_mixed_labels(self, tmp_path):
        config = zoo_config(tmp_path)
        checkpoint = save_random_weights(config, tmp_path / "weights.pth")
        classifier = CamClassifier(build_classifier(config, str(checkpoint))[0])
        samples = [
            sample((70, 90), [0, 2], 0), sample((70, 90), [1], 1), sample((90, 60), [0, 1, 2], 2)
        ]  # fmt: skip
        found = maps_of(classifier, samples, BatchLimit(8, 128))
        for one, image in zip(samples, found, strict=True):
            for row, label in enumerate(one.entry.labels):
                entry = one.entry._replace(labels=np.array([label]))
                (alone,) = maps_of(classifier, [one._replace(entry=entry)], BatchLimit(1, 128))
                for (maps, *_), (expected, *_) in zip(image.scales, alone.scales, strict=True):
                    np.testing.assert_allclose(maps[:, row], expected[:, 0], rtol=1e-3, atol=1e-4)


def test_readers_follow_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert default_workers(on_gpu=True, local_ranks=8) == 7
    assert default_workers(on_gpu=True, local_ranks=1) == 16
    assert default_workers(on_gpu=True, local_ranks=100) == 1
    assert default_workers(on_gpu=False, local_ranks=1) == 8
    assert default_workers(on_gpu=False, local_ranks=16) == 1


@pytest.mark.parametrize(("launcher", "ranks"), [("slurm", "8"), ("none", None)])
def test_ranks_of_a_node_are_known_under_slurm_too(monkeypatch, launcher, ranks):
    monkeypatch.setattr(options, "init_processes", lambda launcher: None)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # and at the end of the test
    options.start_processes(argparse.Namespace(launcher=launcher, local_rank=0))
    assert os.environ.get("LOCAL_WORLD_SIZE") == ranks


def make_boxes(seconds, pids):
    """Have two processes, one of which works for some seconds, and wait."""
    with box_processes(2) as processes:
        for _ in range(20):
            processes.submit(os.getpid)
        processes.submit(time.sleep, seconds)
        while len(processes._processes) < 2:
            processes.submit(time.sleep, 0.1)
        pids.send(list(processes._processes))
        time.sleep(60)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [0, 50])
def test_processes_that_make_boxes_end_with_their_parent(end, seconds):
    """Whether they wait for work or are at it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    main = multiprocessing.get_context("fork").Process(target=make_boxes, args=(seconds, sender))
    main.start()
    sender.close()
    pids = receiver.recv()
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    os.kill(main.pid, end)
    main.join(10)
    assert main.exitcode == -end
    end = time.monotonic() + 15
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.1)
