"""tools/benchmarks/gpu.py: it works where no GPU is, and a section that fails costs no other."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "tools" / "benchmarks"))

import gpu


def run(out, *arguments):
    command = [sys.executable, gpu.__file__, "--device", "cpu", "--quick", "--out", out]
    done = subprocess.run(
        [str(part) for part in [*command, *arguments]], capture_output=True, text=True, timeout=500
    )
    rows = [json.loads(line) for line in Path(out).read_text().splitlines()]
    return done, rows


@pytest.mark.slow
def test_all_sections_on_a_cpu(tmp_path):
    done, rows = run(tmp_path / "rows.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(dict.fromkeys(row["section"] for row in rows)) == list(gpu.LIMITS)
    assert {row["state"] for row in rows} <= {"ok", "skipped", "lacking"}
    for row in rows:
        assert row["what"] in done.stdout
        assert row["result"] in done.stdout
    sections = [row["section"] for row in rows if row["what"] == "the section as a whole"]
    assert sections == list(gpu.LIMITS)
    compared = [row["what"] for row in rows if row["section"] == "operators"]
    assert "batch_maps of Step 2, float32" in compared
    tests = [row for row in rows if row["section"] == "tests"][:-1]
    assert len(tests) > 15
    assert {row["state"] for row in tests} == {"skipped"}


def test_section_that_fails_is_named_and_the_next_one_runs(tmp_path):
    """The folder of images is empty. Rows of an earlier run stay out of the table."""
    out = tmp_path / "rows.jsonl"
    gpu.append(out, "earlier", "something", "1 s", "failed")
    (tmp_path / "empty").mkdir()
    done, rows = run(out, "--images", tmp_path / "empty", "--only", "profile", "environment")
    assert done.returncode == 1
    assert [row["section"] for row in rows[:2]] == ["earlier", "profile"]
    assert rows[1]["state"] == "failed"
    assert "Error" in rows[1]["result"]
    assert rows[-1] == {**rows[-1], "section": "environment", "state": "ok"}
    assert "earlier" not in done.stdout
    assert "1 failed" in done.stdout.splitlines()[-1]


def test_section_that_hangs_is_ended(tmp_path, monkeypatch):
    script = tmp_path / "hanging.py"
    script.write_text("import time\nprint('begun', flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setitem(gpu.LIMITS, "profile", 6)
    args = argparse.Namespace(
        device="cpu", quick=True, images=".", workers=1, only=["profile"],
        out=str(tmp_path / "rows.jsonl"),
    )  # fmt: skip
    (row,) = gpu.run_all(args, tmp_path)
    assert row["state"] == "failed"
    assert "not finished within 6 s\nbegun" in row["result"]
