"""Step 2 in several processes: what must be the same, who lists, and who leaves when."""

import time

import pytest
from mmpretrain.datasets import CustomDataset

from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes import (
    Execution,
    PseudoBoxSettings,
    generate_from_config,
    generate_pseudo_boxes,
)
from dap.ranks import all_ranks
from dap.store.writer import StoreWriter
from dap.testing import make_class_folders
from tests.support.planted import planted_classifier, planted_state
from tests.support.planted_runs import SETTINGS, tree
from tests.support.rank_processes import in_ranks
from tests.support.zoo import save_random_weights, zoo_config

SMALL = {"num_workers": 0, "shard_size": 4}


@pytest.fixture
def root(tmp_path):
    return make_class_folders(tmp_path / "images", 5)


def generate(root, out, model=None, settings=SETTINGS, **execution):
    execution = Execution(**SMALL, **execution)
    dataset = CustomDataset(data_root=str(root), lazy_init=True)
    return generate_pseudo_boxes(
        model or planted_classifier(), dataset, out, settings, "weights.pth", execution
    )


def test_three_processes_write_the_bytes_of_one(root, tmp_path):
    alone = generate(root, tmp_path / "one")
    summaries = in_ranks(lambda rank: generate(root, tmp_path / "three"), 3, tmp_path)
    assert summaries == [alone] * 3
    assert tree(tmp_path / "three") == tree(tmp_path / "one")


def test_zoo_classifier_in_two_processes(root, tmp_path):
    """A config of mmpretrain's own folder, from config and checkpoint to the store."""
    config = zoo_config(root)
    checkpoint = save_random_weights(config, tmp_path / "weights.pth")

    def run(out):
        return generate_from_config(
            config, str(checkpoint), out, execution=Execution(**SMALL), device="cpu"
        )

    run(tmp_path / "one")
    in_ranks(lambda rank: run(tmp_path / "two"), 2, tmp_path)
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def test_other_weights_in_one_rank_are_named_before_the_first_image(root, tmp_path):
    def run(rank):
        model = planted_classifier()
        state = planted_state()
        state["head.fc.bias"] = state["head.fc.bias"] + rank
        model.load_state_dict(state)
        generate(root, tmp_path / "out", model)

    for message in in_ranks(run, 2, tmp_path):
        assert "ValueError: the processes of this run differ: classifier.weights_sha256" in message
        assert "in rank 1" in message
    assert not (tmp_path / "out").exists()


def test_other_settings_in_one_rank_are_named(root, tmp_path):
    def run(rank):
        taus = (0.3, 0.5 + 0.1 * rank)
        generate(
            root, tmp_path / "out", settings=PseudoBoxSettings((128,), True, taus, rule="paper")
        )

    for message in in_ranks(run, 2, tmp_path):
        assert "settings.thresholds is [0.3, 0.6] in rank 1 and [0.3, 0.5] in rank 0" in message


@pytest.mark.parametrize("fault", ["absent", "another"])
def test_files_that_one_rank_sees_otherwise_are_named(root, tmp_path, fault):
    """Each node has a copy of the images of its own, and one copy is not up to date."""
    other = make_class_folders(tmp_path / "copy", 5)
    if fault == "absent":
        (other / "green" / "3.jpg").unlink()
    else:
        (other / "green" / "3.jpg").write_bytes(b"old")
    out = tmp_path / "out"
    for message in in_ranks(lambda rank: generate((root, other)[rank], out), 2, tmp_path):
        assert "see different images: 1 of 15" in message
        assert "green/3.jpg" in message
        assert ("absent in rank 1" if fault == "absent" else "3 bytes in rank 1") in message
    assert not list((out / "shards").iterdir())
    in_ranks(lambda rank: generate(root, out), 2, tmp_path)  # the folder is free for another try
    generate(root, tmp_path / "one")
    assert tree(out) == tree(tmp_path / "one")


def test_copies_of_the_images_below_other_roots_will_do(root, tmp_path):
    other = make_class_folders(tmp_path / "copy", 5)
    results = in_ranks(
        lambda rank: generate((root, other)[rank], tmp_path / "out")["images"], 2, tmp_path
    )
    assert results == [15, 15]


def test_only_the_first_process_lists_the_images(root, tmp_path, monkeypatch):
    listed, of = [], LabelledImages._listed

    def spy(self):
        listed.append(1)
        yield from of(self)

    monkeypatch.setattr(LabelledImages, "_listed", spy)

    def run(rank):
        generate(root, tmp_path / "out")
        return len(listed)

    assert in_ranks(run, 3, tmp_path) == [1, 0, 0]


def test_others_leave_before_the_coco_file_is_written(root, tmp_path, monkeypatch):
    """The first process waits, in its writing, for the file by which the second says that it left.

    If the second waited for the first, neither would end.
    """
    left, write = tmp_path / "left", StoreWriter.write_derived

    def waiting(self, *args):
        end = time.monotonic() + 60
        while not left.exists():
            assert time.monotonic() < end, "the other process is still there"
            time.sleep(0.05)
        write(self, *args)

    monkeypatch.setattr(StoreWriter, "write_derived", waiting)

    def run(rank):
        images = generate(root, tmp_path / "out")["images"]
        if rank:
            left.touch()
        return images

    assert in_ranks(run, 2, tmp_path) == [15, 15]
    assert (tmp_path / "out" / "annotations.json").exists()


def test_run_without_a_coco_file_is_finished_and_can_have_one_later(root, tmp_path):
    out = tmp_path / "out"
    generate(root, out, coco=False)
    assert not (out / "annotations.json").exists()
    before = (out / "summary.json").stat().st_mtime_ns
    generate(root, out, coco=False)
    assert (out / "summary.json").stat().st_mtime_ns == before
    generate(root, out)
    generate(root, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_another_device_or_algorithm_is_another_run(root, tmp_path, monkeypatch):
    from dap.pseudo_boxes import run_description

    generate(root, tmp_path / "out")
    monkeypatch.setattr(run_description, "ALGORITHM", run_description.ALGORITHM + 1)
    with pytest.raises(ValueError, match=r"another run.*computation\.algorithm: earlier \d+"):
        generate(root, tmp_path / "out")


@pytest.mark.parametrize(("device", "message"), [
    ("mps", "expected cpu, cuda or cuda:N"),
    ("meta", "expected cpu, cuda or cuda:N"),
    ("cuda:99", r"has \d+ CUDA devices"),
    ("gpu", "expected cpu, cuda or cuda:N"),
])  # fmt: skip
def test_devices_that_step_2_does_not_work_on_are_refused(root, tmp_path, device, message):
    config = zoo_config(root)
    with pytest.raises(ValueError, match=f"device '{device}': .*{message}"):
        generate_from_config(config, "weights.pth", tmp_path / "out", device=device)


def test_groups_end_however_busy_their_threads_are(tmp_path):
    """torch 2.6 hung within some hundred of these where a group was deleted when it ended."""

    def run(rank):
        for count in range(150):
            with all_ranks() as ranks:
                assert ranks.on_first_rank(lambda count=count: count) == count
                assert ranks.gather(rank) == [0, 1]
                ranks.wait()
        return "ended"

    assert in_ranks(run, 2, tmp_path) == ["ended", "ended"]
