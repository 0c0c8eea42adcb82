"""Worker processes that die, hang or fail, and what the run still delivers."""

import faulthandler
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.datasets import CustomDataset

from dap.images import reading
from dap.images.labelled_images import LabelledImages, Sample
from dap.images.reading import read_in_order
from dap.testing import make_class_folders

COUNT = 27
PARENT = os.getpid()
FORK = multiprocessing.get_context("fork")
EARLIER: list = []


class Misbehaving(LabelledImages):
    """Images of which some are trouble in whatever process but the main one reads them."""

    trouble: dict = {}  # noqa: RUF012

    def __getitem__(self, index: int) -> Sample:
        if index in self.trouble and os.getpid() != PARENT:
            self.trouble[index]()
        return super().__getitem__(index)


def die(number: int):
    def kill():
        faulthandler.disable()  # its report on the way is pytest's, for those who look for a crash
        os.kill(os.getpid(), number)

    return kill


def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def fail():
    raise KeyError("a bug in the dataset")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = make_class_folders(tmp_path_factory.mktemp("data") / "images", COUNT // 3)
    (folder / "green" / "1.jpg").write_bytes(b"")  # index 10
    return folder


@pytest.fixture
def images(root, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 4)
    return Misbehaving(CustomDataset(data_root=str(root)))


def readers():
    """Child processes that the running test has started."""
    return [child for child in multiprocessing.active_children() if child not in EARLIER]


@pytest.fixture(autouse=True)
def no_process_stays():
    """Tests of other files may have left processes, such as those of a data loader."""
    EARLIER[:] = multiprocessing.active_children()
    yield
    assert readers() == []


def assert_same(sample: Sample, expected: Sample):
    assert sample.entry.path == expected.entry.path
    assert sample.entry.file_name == expected.entry.file_name
    np.testing.assert_array_equal(sample.entry.labels, expected.entry.labels)
    assert sample.error == expected.error
    if expected.image is None:
        assert sample.image is None
    else:
        assert torch.equal(sample.image, expected.image)


def check(images, indices, failing=(), reason="", **kwargs):
    """All that is not failing is delivered as it is, in order; the failing with the reason."""
    samples = list(read_in_order(images, indices, **kwargs))
    assert len(samples) == len(indices)
    for index, sample in zip(indices, samples, strict=True):
        if index in failing:
            assert sample.image is None
            assert reason in sample.error
            assert sample.entry.path == images.entry(index).path
        else:
            assert_same(sample, images[index])


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("pin_memory", [False, True])
def test_samples_are_those_of_direct_reading_in_order(images, num_workers, pin_memory):
    order = [*range(5, COUNT), 3, 3, 0]
    check(images, order, num_workers=num_workers, pin_memory=pin_memory)


@pytest.mark.parametrize("indices", [[], [7], [10], [1, 2], range(8)])
def test_few_images_and_many_workers(images, indices):
    check(images, indices, num_workers=3)


def test_images_that_are_kept_stay_as_they_are(images):
    """Memory that a worker fills again is not that of the images handed out."""
    samples = list(read_in_order(images, range(COUNT), 1))
    for index, sample in enumerate(samples):
        assert_same(sample, images[index])


@pytest.mark.parametrize(
    ("ahead", "limit", "read"),
    [(0, 1 << 30, 12), (20, 1 << 30, 24), (1000, 1 << 30, COUNT), (1000, 1, 12)],
)
def test_images_are_read_ahead_while_none_is_taken(images, monkeypatch, ahead, limit, read):
    """Of the first chunk of 4 one image is taken; two chunks, or 20 images, more are asked for."""
    monkeypatch.setattr(reading, "AHEAD_BYTES", limit)
    done = multiprocessing.Value("i", 0)

    def count():
        with done.get_lock():
            done.value += 1

    images.trouble = dict.fromkeys(range(COUNT), count)
    samples = read_in_order(images, range(COUNT), 1, ahead=ahead)
    next(samples)
    end = time.monotonic() + 20
    while done.value < read and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    assert done.value == read
    for index, sample in enumerate(samples, 1):
        assert_same(sample, images[index])


def test_image_that_kills_its_process_while_many_are_read_ahead(images):
    images.trouble = {9: die(signal.SIGKILL)}
    check(images, range(COUNT), {9}, "died (signal 9)", num_workers=2, ahead=1000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_image_that_kills_its_process(images, number):
    images.trouble = {9: die(number)}
    reason = f"the process that read it died (signal {int(number)})"
    check(images, range(COUNT), {9}, reason, num_workers=2)


def test_process_that_ends_by_itself(images):
    images.trouble = {0: lambda: os._exit(3)}
    check(images, range(COUNT), {0}, "died (exit code 3)", num_workers=1)


def test_image_that_hangs(images):
    images.trouble = {6: hang}
    check(images, range(COUNT), {6}, "did not finish within 1 s", num_workers=2, timeout=1.0)


def test_slow_images_that_finish_one_by_one_are_no_hang(images):
    images.trouble = dict.fromkeys(range(4), lambda: time.sleep(0.5))
    check(images, range(8), num_workers=1, timeout=1.5)


def test_images_that_die_and_hang_side_by_side(images):
    killer = die(signal.SIGKILL)
    images.trouble = {0: killer, 1: hang, 5: killer, 6: killer, 26: killer}
    samples = list(read_in_order(images, range(COUNT), 3, timeout=1.0))
    bad = {index for index, sample in enumerate(samples) if sample.image is None}
    assert bad == {*images.trouble, 10}
    assert "finish" in samples[1].error
    assert "signal 9" in samples[26].error


def test_each_image_kills_its_process(images):
    images.trouble = dict.fromkeys(range(COUNT), die(signal.SIGKILL))
    check(images, range(9), set(range(9)), "signal 9", num_workers=2)


def test_image_that_kills_once_is_delivered(images, tmp_path):
    def die_once():
        flag = tmp_path / "flag"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    images.trouble = {9: die_once}
    check(images, range(COUNT), num_workers=2)
    assert (tmp_path / "flag").exists()


def test_idle_process_that_dies_is_replaced(images):
    samples = read_in_order(images, range(COUNT), 2)
    first = next(samples)
    time.sleep(0.5)
    for child in readers():
        child.kill()
    for index, sample in enumerate([first, *samples]):
        assert_same(sample, images[index])


def test_death_is_not_raised_in_what_the_consumer_does(images):
    """The handler of SIGCHLD that torch's DataLoader installs does so for its own workers."""
    images.trouble = {7: die(signal.SIGKILL)}
    seen = 0
    for _ in read_in_order(images, range(COUNT), 2):
        time.sleep(0.02)
        seen += 1
    assert seen == COUNT


@pytest.mark.parametrize("trouble", [{}, {6: hang}])
def test_consumer_that_stops_early(images, trouble):
    images.trouble = trouble
    samples = read_in_order(images, range(COUNT), 3)
    next(samples)
    assert len(readers()) == 3
    samples.close()
    assert readers() == []


def test_errors_of_the_dataset_surface(images):
    images.trouble = {5: fail}
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*in fail.*a bug in the dataset"):
        list(read_in_order(images, range(COUNT), 2))


def test_settings_of_the_workers(images):
    import cv2

    def single_threaded():
        assert cv2.getNumThreads() == 1
        assert torch.get_num_threads() == 1

    images.trouble = {0: single_threaded}
    check(images, range(2), num_workers=1)


def read_and_be_killed(root, pids):
    """A main process that is killed while one of its two workers hangs."""
    images = Misbehaving(CustomDataset(data_root=str(root)))
    images.trouble = {12: hang}
    samples = read_in_order(images, range(COUNT), 2)
    next(samples)
    pids.send([child.pid for child in readers()])
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_with_a_main_process_that_is_killed(root):
    """Also one that hangs."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=read_and_be_killed, args=(root, sender))
    process.start()
    pids = receiver.recv()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
