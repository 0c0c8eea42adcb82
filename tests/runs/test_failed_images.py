"""Images that failed: which are tried again, when, and what is kept meanwhile."""

import errno
import json
import os

import pytest
from mmpretrain.datasets import CustomDataset

from dap.images import labelled_images, reading
from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes import Execution, PseudoBoxStore, generate_from_config
from tests.support.planted_runs import mend, run, spoil, tree
from tests.support.stores import interrupted_writing
from tests.support.zoo import save_random_weights, zoo_config


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read from now on."""
    names, read = [], labelled_images.read_image

    def spy(path, *args):
        names.append("/".join(path.split("/")[-2:]))
        return read(path, *args)

    monkeypatch.setattr(labelled_images, "read_image", spy)
    return names


def test_retry_computes_the_failed_images_alone(root, tmp_path, written, reads):
    whole = spoil(root, "blue/2.jpg", "red/6.jpg")
    assert len(run(root, tmp_path / "out")["failed"]) == 2
    mend(whole)
    reads.clear()
    summary = run(root, tmp_path / "out", retry_failed=True)
    assert sorted(reads) == ["blue/2.jpg", "red/6.jpg"]
    assert summary["failed"] == []
    assert tree(tmp_path / "out") == written


def test_retry_that_fails_again_keeps_the_reason(root, tmp_path):
    spoil(root, "blue/2.jpg")
    run(root, tmp_path / "out")
    before = tree(tmp_path / "out")
    run(root, tmp_path / "out", retry_failed=True)
    assert tree(tmp_path / "out") == before


def test_killed_while_it_retries_loses_nothing(root, tmp_path, written):
    """The old shard stays, and the store is whole, until the new one is there and counted."""
    whole = spoil(root, "blue/2.jpg", "green/5.jpg")
    out = tmp_path / "out"
    run(root, out)
    before = tree(out)
    mend(whole)
    with interrupted_writing(1, "replace"):
        run(root, out, retry_failed=True)
    after = tree(out)
    assert {name: after[name] for name in before} == before
    assert len(PseudoBoxStore(out)) == 21
    summary = run(root, out)  # takes the shard that was mended
    assert [failure["file_name"] for failure in summary["failed"]] == ["green/5.jpg"]
    run(root, out, retry_failed=True)
    assert tree(out) == written


@pytest.mark.slow
def test_zoo_classifier_retries_too(root, tmp_path):
    config = zoo_config(root)
    checkpoint = str(save_random_weights(config, tmp_path / "weights.pth"))

    def run(name, **execution):
        execution = Execution(num_workers=0, shard_size=8, **execution)
        generate_from_config(config, checkpoint, tmp_path / name, execution=execution, device="cpu")

    run("undisturbed")
    whole = spoil(root, "green/0.jpg")
    run("out")
    mend(whole)
    run("out", retry_failed=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


class TestTemporary:
    """A disk that does not answer says nothing of the image."""

    @pytest.fixture
    def stalling(self, monkeypatch):
        """Reading these files raises an error of the disk so many times."""
        left, read = {}, labelled_images.read_image

        def unsteady(path, *args):
            name = "/".join(path.split("/")[-2:])
            if left.get(name, 0):
                left[name] -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return read(path, *args)

        monkeypatch.setattr(labelled_images, "read_image", unsteady)
        return left

    def test_is_tried_again_at_the_end(self, root, tmp_path, written, stalling):
        stalling.update({"blue/1.jpg": 1, "red/3.jpg": 1})
        assert run(root, tmp_path / "out")["failed"] == []
        assert tree(tmp_path / "out") == written
        assert stalling == {"blue/1.jpg": 0, "red/3.jpg": 0}

    def test_is_tried_again_by_the_next_start(self, root, tmp_path, written, stalling):
        stalling["blue/1.jpg"] = 3
        (failure,) = run(root, tmp_path / "out")["failed"]
        assert failure["reason"].startswith("temporary: OSError: [Errno 5] Input/output error")
        assert stalling["blue/1.jpg"] == 1
        (failure,) = run(root, tmp_path / "out")["failed"]  # tries it once
        assert stalling["blue/1.jpg"] == 0
        assert run(root, tmp_path / "out")["failed"] == []
        assert tree(tmp_path / "out") == written

    def test_finished_run_whose_disk_stays_dead_is_kept(self, root, tmp_path, stalling):
        stalling["blue/1.jpg"] = 99
        run(root, tmp_path / "out")
        before = (tmp_path / "out" / "summary.json").stat().st_mtime_ns
        run(root, tmp_path / "out")
        assert (tmp_path / "out" / "summary.json").stat().st_mtime_ns == before

    def test_damage_of_the_file_is_not(self, root, tmp_path, reads):
        spoil(root, "blue/2.jpg")
        run(root, tmp_path / "out")
        reads.clear()
        run(root, tmp_path / "out")
        assert reads == []

    def test_reader_that_hangs_is(self, root, tmp_path, written, monkeypatch):
        """The first two readings of a file hang, as on a network disk that is restarted."""
        read, mark = labelled_images.read_image, tmp_path / "hangs"
        mark.write_text("xx")

        def hanging(path, *args):
            if path.endswith("green/4.jpg") and (left := mark.read_text()):
                mark.write_text(left[1:])
                import time

                time.sleep(60)
            return read(path, *args)

        monkeypatch.setattr(labelled_images, "read_image", hanging)
        monkeypatch.setattr(reading, "POLL", 0.1)
        summary = run(root, tmp_path / "out", num_workers=1, read_timeout=1.0)
        assert mark.read_text() == ""
        assert summary["failed"] == []
        assert tree(tmp_path / "out") == written

    def test_reader_that_the_system_kills_is(self, root, monkeypatch):
        """SIGKILL is what a process gets when memory runs out."""
        read = labelled_images.read_image

        def killed(path, *args):
            if path.endswith("green/4.jpg"):
                os.kill(os.getpid(), 9)
            return read(path, *args)

        monkeypatch.setattr(labelled_images, "read_image", killed)
        data = LabelledImages(CustomDataset(data_root=str(root)))
        samples = list(reading.read_in_order(data, range(21), 1))
        (error,) = [sample.error for sample in samples if sample.error]
        assert error == "temporary: the process that read it died (signal 9)"


def test_statistics_of_a_replaced_shard_are_those_of_a_new_one(root, tmp_path, written):
    """Counts, sizes and top-1 are summed anew, not only the boxes."""
    whole = spoil(root, "blue/2.jpg", "red/6.jpg")
    run(root, tmp_path / "out")
    mend(whole)
    run(root, tmp_path / "out", retry_failed=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == json.loads(written["summary.json"])
    assert summary["merged"]["boxes"] > 0
