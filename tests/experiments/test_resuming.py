"""Trainings that were killed: from which checkpoint they go on, and the record of their inputs."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from dap.jobs import Job
from dap.jobs.records import begin_record, recorded_inputs
from dap.jobs.running import run_job
from dap.jobs.state import is_finished, resumed_command

NOTE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]))"


def training(root):
    """A training whose command writes down its arguments."""
    weights = root / "start.pth"
    weights.write_text("weights")
    (root / "a.py").write_text(f"total_batch = 2\nwork_dir = {str(root / 'a')!r}\n")
    config = Config.fromfile(root / "a.py")
    command = (sys.executable, "-c", NOTE, str(root / "said"))
    makes = str(root / "a" / "iter_9.pth")
    return Job("a", "train", command, makes, config, inputs=(str(weights),))


def leave_checkpoint(job, name):
    """What MMEngine leaves in the work directory when it has written a checkpoint."""
    folder = Path(job.makes).parent
    folder.mkdir(exist_ok=True)
    job.config.dump(folder / "a.py")
    (folder / name).touch()
    (folder / "last_checkpoint").write_text(str(folder / name))


def test_moved_training_goes_on_from_its_own_checkpoint(tmp_path):
    """Another training is at the former place and has a checkpoint of this name."""
    former, place = tmp_path / "former", tmp_path / "place"
    former.mkdir()
    leave_checkpoint(training(former), "iter_3.pth")
    assert resumed_command(training(former))[-1] == "--resume"
    shutil.copytree(former, place)

    job = training(place)
    assert resumed_command(job)[-2:] == ("--resume", str(place / "a" / "iter_3.pth"))
    with pytest.raises(RuntimeError, match="ended without"):
        run_job(job, place)
    assert (place / "said").read_text() == f"--resume {place / 'a' / 'iter_3.pth'}"


@pytest.mark.parametrize("recorded", ["/gone/iter_6.pth", ""])
def test_checkpoint_that_is_not_there(tmp_path, recorded):
    job = training(tmp_path)
    leave_checkpoint(job, "iter_3.pth")
    (tmp_path / "a" / "last_checkpoint").write_text(recorded)
    with pytest.raises(ValueError, match=rf"last_checkpoint names '{recorded}'.*same folder"):
        run_job(job, tmp_path)
    assert not (tmp_path / "said").exists()


def test_training_killed_after_its_last_checkpoint_has_a_record(tmp_path):
    """Its validation did not end, and so its command did not."""
    job = training(tmp_path)
    begin_record(job)
    leave_checkpoint(job, "iter_9.pth")
    assert recorded_inputs(job, job.makes) is None

    run_job(job, tmp_path)
    assert not (tmp_path / "said").exists()
    assert list(recorded_inputs(job, job.makes)) == [str(tmp_path / "start.pth")]
    other = replace(job, compared=None)
    Path(tmp_path / "start.pth").write_text("other weights")
    with pytest.raises(ValueError, match=r"made from other inputs.*start\.pth"):
        is_finished(other)


def test_inputs_that_changed_after_the_kill_are_not_recorded_as_its_own(tmp_path):
    job = training(tmp_path)
    begin_record(job)
    leave_checkpoint(job, "iter_9.pth")
    (tmp_path / "start.pth").write_text("other weights")
    with pytest.raises(ValueError, match=r"made from other inputs.*start\.pth"):
        run_job(job, tmp_path)
    assert recorded_inputs(job, job.makes) is None


def test_training_killed_while_its_config_was_written_starts_anew(tmp_path):
    """MMEngine opens the file before it formats the text."""
    job = training(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.py").touch()
    with pytest.raises(RuntimeError, match="ended without"):
        run_job(job, tmp_path)
    assert (tmp_path / "said").read_text() == ""
