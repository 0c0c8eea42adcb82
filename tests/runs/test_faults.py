"""Step 2 on full, read-only and broken disks, interrupted, contested and taken up again."""

import json
import multiprocessing
import resource
import signal
from pathlib import Path

import pytest

from dap.files import locked
from dap.pseudo_boxes import Execution, PseudoBoxStore
from dap.runs import health
from dap.store.writer import StoreWriter
from tests.support.planted_runs import mend, run, spoil, tree
from tests.support.stores import interrupted_writing
from tests.support.zoo import zoo_run


@pytest.fixture
def computed(monkeypatch):
    """The shards that are written from now on."""
    numbers = []
    write = StoreWriter.write

    def spy(self, shard, *args):
        write(self, shard, *args)
        numbers.append(shard)

    monkeypatch.setattr(StoreWriter, "write", spy)
    return numbers


def test_interrupted_run_goes_on_with_what_is_missing(root, tmp_path, written, computed):
    out = tmp_path / "out"
    with interrupted_writing(1):
        run(root, out)
    (out / "shards" / ".00001-0.arrow.77.partial").write_bytes(b"half")
    assert "shards" not in json.loads((out / "manifest.json").read_text())
    assert not (out / "annotations.json").exists()
    with pytest.raises(ValueError, match="is not finished: run the command"):
        PseudoBoxStore(out)
    assert computed == [0]
    run(root, out)
    assert computed == [0, 1, 2]
    assert tree(out) == written
    run(root, out)
    assert computed == [0, 1, 2]


def test_other_settings_are_refused_and_named(root, tmp_path, written):
    out = tmp_path / "undisturbed"
    with pytest.raises(ValueError, match=r"holds another run.*shard_size: earlier 8, now 4"):
        run(root, out, shard_size=4)
    (root / "red" / "0.jpg").rename(root / "red" / "00.jpg")
    with pytest.raises(ValueError, match=r"image_list\.list_sha256"):
        run(root, out)
    assert tree(out) == written


@pytest.mark.parametrize("damage", ["flipped", "missing", "cut"])
def test_damaged_shard_is_found_on_opening_and_made_again(
    root, tmp_path, written, computed, damage
):
    out = tmp_path / "undisturbed"
    shard = sorted((out / "shards").iterdir())[1]
    content = bytearray(shard.read_bytes())
    if damage == "missing":
        shard.unlink()
    else:
        content[len(content) // 2] ^= 1
        shard.write_bytes(content if damage == "flipped" else content[:-100])
    words = "is missing, 1 of 3" if damage == "missing" else "is damaged: its SHA-256"
    with pytest.raises(ValueError, match=f"{shard.name} {words}.*Run the command that wrote it"):
        PseudoBoxStore(out)
    run(root, out)
    assert computed == [1]
    assert tree(out) == written
    assert len(PseudoBoxStore(out)) == 21


def test_shard_of_another_run_is_not_taken(root, tmp_path, written, computed):
    other = tmp_path / "other"
    (root / "red" / "extra.jpg").write_bytes((root / "red" / "0.jpg").read_bytes())
    run(root, other)
    (root / "red" / "extra.jpg").unlink()
    out = tmp_path / "undisturbed"
    own = sorted((out / "shards").iterdir())[0]
    own.unlink()
    foreign = sorted((other / "shards").iterdir())[0]
    (out / "shards" / foreign.name).write_bytes(foreign.read_bytes())
    computed.clear()
    run(root, out)
    assert computed == [0]
    assert tree(out) == written


def in_child(function, *args) -> None:
    """Call a function in a process of its own, whose limits are its own."""
    child = multiprocessing.get_context("fork").Process(target=function, args=args)
    child.start()
    child.join(120)
    assert child.exitcode == 0


def run_with_small_files(root: Path, out: Path, size: int, message: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with pytest.raises(OSError, match=message):
        run(root, out)


def test_no_room_for_a_file(root, tmp_path, written):
    """The manifest fits, a shard does not; then the shards, but not annotations.json."""
    out = tmp_path / "out"
    sizes = {name.split("-")[0]: len(content) for name, content in written.items()}
    assert sizes["manifest.json"] < sizes["shards/00000"] < sizes["annotations.json"]
    message = r"00000-.*cannot be written \(File too large\).*Nothing that was finished is lost"
    in_child(run_with_small_files, root, out, sizes["shards/00000"] - 100, message)
    assert [name for name in tree(out) if "shards" in name] == []
    message = r"annotations\.json cannot be written \(File too large\)"
    in_child(run_with_small_files, root, out, sizes["annotations.json"] - 1, message)
    assert len(list((out / "shards").iterdir())) == 3
    run(root, out)
    assert tree(out) == written


def run_as_nobody(root: Path, out: Path) -> None:
    import os

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
        run(root, out)


def test_folder_that_may_not_be_written(root, tmp_path):
    import os

    if os.geteuid() == 0:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder != Path(folder.anchor):
                folder.chmod(folder.stat().st_mode | 0o055)
        in_child(run_as_nobody, root, tmp_path / "out")
    else:
        tmp_path.chmod(0o555)
        with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
            run(root, tmp_path / "out")
        tmp_path.chmod(0o755)
    assert not (tmp_path / "out").exists()


def hold(path: Path, ready, done) -> None:
    with locked(path):
        ready.set()
        done.wait(60)


def test_two_runs_at_once_are_refused(root, tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=hold, args=(tmp_path / "out" / ".lock", ready, done))
    child.start()
    assert ready.wait(60)
    with pytest.raises(RuntimeError, match=rf"being written by another.*process {child.pid} on"):
        run(root, tmp_path / "out")
    child.kill()  # the lock ends with the process
    child.join()
    run(root, tmp_path / "out")
    assert not (tmp_path / "out" / ".lock").exists()


def test_disk_that_goes_away_stops_the_run_and_spoils_nothing(root, tmp_path, written, monkeypatch):
    """From the twelfth image on all fail: only the first shard is sound for certain."""
    monkeypatch.setattr(health, "RECENT", 6)
    gone = tmp_path / "gone"
    names = [f"{colour}/{i}.jpg" for colour in ("blue", "green", "red") for i in range(7)][11:]
    for name in names:
        (gone / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).rename(gone / name)
        (root / name).touch()
    with pytest.raises(RuntimeError, match=r"of 6 images could not be used, more than the 50%"):
        run(root, tmp_path / "out")
    assert [path.name[:5] for path in (tmp_path / "out" / "shards").iterdir()] == ["00000"]
    for name in names:
        (gone / name).rename(root / name)
    run(root, tmp_path / "out")
    assert tree(tmp_path / "out") == written


def test_too_many_failures_in_all_are_tried_again(root, tmp_path, written):
    """Five of 21 are more than a fifth; the end of the run notices, and the next start heals it."""
    whole = spoil(root, "blue/0.jpg", "blue/3.jpg", "green/2.jpg", "red/1.jpg", "red/5.jpg")
    with pytest.raises(RuntimeError, match=r"5 of 21 images could not be used, more than the 20%"):
        run(root, tmp_path / "out", max_bad_fraction=0.2)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert len(run(root, tmp_path / "out", max_bad_fraction=0.25)["failed"]) == 5
    mend(whole)
    assert len(run(root, tmp_path / "out")["failed"]) == 5  # finished is finished
    assert run(root, tmp_path / "out", retry_failed=True)["failed"] == []
    assert tree(tmp_path / "out") == written


def test_disk_that_was_not_there_is_tried_again(root, tmp_path, written):
    """No image at all is never a result, whatever share may fail; the cure is in the message."""
    whole = spoil(root, *root.glob("*/*.jpg"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"none of 21 images could be used.*run the same"):
            run(root, tmp_path / "out", max_bad_fraction=1.0)
    mend(whole)
    run(root, tmp_path / "out", max_bad_fraction=1.0)
    assert tree(tmp_path / "out") == written


@pytest.mark.parametrize("settings", [
    {"num_workers": -1}, {"batch_size": 0}, {"shard_size": 0}, {"max_bad_fraction": 1.5},
    {"read_timeout": 0.0},
])  # fmt: skip
def test_execution_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Execution(**settings)


@pytest.mark.parametrize("execution", [{"batch_size": 1}, {"batch_size": 5}, {"num_workers": 3}])
def test_batches_and_workers_change_nothing(root, tmp_path, written, execution):
    run(root, tmp_path / "out", **execution)
    assert tree(tmp_path / "out") == written


def test_threads_change_nothing(root, tmp_path, written):
    import torch

    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            run(root, tmp_path / str(threads))
            assert tree(tmp_path / str(threads)) == written
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_classifier_of_the_zoo_goes_on_after_an_interruption(root, tmp_path):
    zoo_run(root, tmp_path / "undisturbed")
    with interrupted_writing(2):
        zoo_run(root, tmp_path / "out")
    zoo_run(root, tmp_path / "out")
    written = tree(tmp_path / "undisturbed")
    for name, content in tree(tmp_path / "out").items():
        if "checkpoint" not in content.decode("latin-1"):  # which has another name
            assert content == written[name], name
