"""The quick start: its data, its chain of steps, what it does when killed, and its promise."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, DictAction

from dap.registry import DATASETS
from tests.support.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "quickstart"
RUN = [sys.executable, str(PROJECT / "run.py")]


def load(name):
    return load_script(PROJECT / f"{name}.py")


@pytest.fixture(scope="module")
def shapes():
    return load("shapes")


@pytest.fixture(scope="module")
def run():
    return load("run")


@pytest.fixture(scope="module")
def chain(run):  # which lets it import the modules beside it
    return load("chain")


@pytest.fixture(scope="module")
def steps():
    return load("steps")


def test_seed_decides_the_data(shapes, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        shapes.make_classification_set(
            tmp_path / name / "train", 1, seed, tmp_path / f"{name}.json"
        )
    files = [sorted((tmp_path / name).rglob("*.jpg")) for name in "abc"]
    assert [len(of) for of in files] == [16, 16, 16]
    contents = [[path.read_bytes() for path in of] for of in files]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert set(shapes.DETECTION_NAMES).isdisjoint(shapes.PRETRAIN_NAMES)


def test_true_boxes_are_tight(shapes):
    """A plain disc alone: its box touches its outermost coloured pixels."""
    shape = shapes.make_classes(shapes.PRETRAIN_NAMES, hues=16)[0]
    image = np.full((shapes.SIDE, shapes.SIDE, 3), 128.0)
    rng = np.random.default_rng(0)
    mask = shapes._paint(image, shape, np.array([60.0, 70.0]), 30.0, rng)
    x1, y1, x2, y2 = shapes._tight_box(mask)
    changed = abs(image - 128).max(axis=2) > 60
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert abs(np.array([x1, y1, x2, y2]) - [columns[0], rows[0], columns[-1] + 1,
                                             rows[-1] + 1]).max() <= 1  # fmt: skip


def test_control_trains_on_the_true_boxes(shapes, chain, tmp_path):
    """Its options put a COCO file, all its categories, in the place of the pseudo boxes."""
    images = tmp_path / "images"
    shapes.make_classification_set(images, 1, 0, tmp_path / "true.json")
    config = Config.fromfile(str(PROJECT / "configs" / "pretrain_detector.py"))
    options = (option.split("=") for option in chain.TRUE_BOXES)
    config.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in options})
    stages = chain.Chain(0, chain.SIZES["full"]).stages(control=True)
    used = {word for stage in stages for step in stage for word in step.command}
    assert used >= {*chain.TRUE_BOXES}
    settings = config.train_dataloader.dataset
    assert settings.ann_file == "data/true_boxes.json"
    settings.update(ann_file=str(tmp_path / "true.json"), pipeline=[])
    dataset = DATASETS.build(settings)
    assert dataset.metainfo["classes"] == tuple(sorted(shapes.PRETRAIN_NAMES))
    assert len(dataset) == 16


def test_twins_share_all_but_the_initialisation(chain):
    cls, dap = (
        Config.fromfile(str(PROJECT / "configs" / f"finetune_{name}.py")).to_dict()
        for name in ("cls", "dap")
    )
    del dap["model"]["init_cfg"], dap["model"]["backbone"]["init_cfg"]
    del cls["model"]["backbone"]["init_cfg"]
    assert cls == dap
    for size in chain.SIZES.values():
        stages = chain.Chain(0, size).stages(control=False)
        commands = {step.name: step.command for stage in stages for step in stage}
        dap, cls = ({*commands[name]} for name in ("dap", "cls"))
        assert {word.split("=")[0].rsplit("/")[-1] for word in dap ^ cls} == {
            "finetune_dap.py", "finetune_cls.py", "dap", "cls",
            "model.init_cfg.checkpoint", "model.backbone.init_cfg.checkpoint",
        }  # fmt: skip


def test_full_size_is_what_the_configs_say(chain):
    """Checkpoints that steps name exist, and typical seconds are known for all steps."""
    lengths = [
        Config.fromfile(str(PROJECT / "configs" / f"{name}.py")).train_cfg.max_iters
        for name in ("classifier", "pretrain_detector", "finetune_cls")
    ]
    assert [*chain.SIZES["full"].lengths] == lengths
    for size in chain.SIZES.values():
        names = {step.name for stage in chain.Chain(0, size).stages(control=True) for step in stage}
        assert names == set(size.seconds)


def test_what_is_made_again_after_a_step(chain):
    """Not the fine-tuning beside it, which needs nothing of it."""
    tiny = chain.Chain(0, chain.SIZES["tiny"])
    assert chain.names_after(tiny, "dap") == ["pretrain_control", "control", "report"]
    assert chain.names_after(tiny, "pretrain_dap")[:2] == ["dap", "cls"]
    assert chain.names_after(tiny, "report") == []


def test_time_left(monkeypatch):
    """Two stages of 100 and 50 typical seconds on a machine of half the speed."""
    clock_module = load("clock")
    now = [1000.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clock_module, "PRIOR_SECONDS", 0.001)
    clock = clock_module.Clock([{"a": 100.0}, {"b": 50.0, "c": 40.0}])
    assert str(clock) == "2:30 left"
    now[0] += 100
    clock.note("a", 0.5)
    assert clock.seconds_left() == pytest.approx(200, rel=1e-3)
    now[0] += 100
    clock.note("a", 1)
    clock.note("a", 0.9)  # a late line
    assert clock.seconds_left() == pytest.approx(100, rel=1e-3)
    now[0] += 60
    clock.note("b", 0.5)
    clock.note("c", 0.25)  # 30 of its 40 seconds are left, of b 25
    assert clock.seconds_left() == pytest.approx(60 * 260 / 240, rel=1e-3)


def step_of(steps, code, name="demo", **more):
    return steps.Step(name, "a demonstration", (sys.executable, "-c", code), "out", **more)


def test_finished_steps_are_known_and_failures_told(steps, tmp_path):
    chain, heard = steps.Steps(tmp_path, "1"), []
    good = step_of(steps, "import os; os.makedirs('out'); print('a\\nb'); print('c', end='')")
    assert chain.seconds_of_finished(good) is None
    chain.run([good], lambda step, line: heard.append((step.name, line)))
    assert heard == [("demo", "a"), ("demo", "b")]
    assert chain.seconds_of_finished(good) is not None
    assert steps.Steps(tmp_path, "2").seconds_of_finished(good) is None  # other code
    chain.run([good], print)  # what it wrote before is gone, or makedirs would fail
    bad = step_of(steps, "print('no luck'); raise SystemExit(3)")
    assert chain.seconds_of_finished(bad) is None  # another command is not finished
    with pytest.raises(RuntimeError, match=r"(?s)no luck.*step demo ended with code 3"):
        chain.run([bad], print)
    assert chain.seconds_of_finished(bad) is None
    assert chain.seconds_of_finished(good) is None
    assert not (tmp_path / "out").exists()


def test_a_failure_ends_the_step_beside_it(steps, tmp_path):
    chain = steps.Steps(tmp_path, "1")
    bad = step_of(steps, "raise SystemExit(3)", "bad")
    endless = step_of(steps, "import time; time.sleep(600)", "endless")._replace(output="out2")
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="step bad ended with code 3"):
        chain.run([endless, bad], print)
    assert time.monotonic() - started < 60
    assert not is_alive(group_of(tmp_path, "endless"))


WORKER = """
import sys, time
while True:
    open('out/' + sys.argv[1], 'a').write('.')
    time.sleep(.02)
"""
COMMAND = f"""
import pathlib, subprocess, sys
pathlib.Path('out').mkdir(exist_ok=True)
number = str(len(list(pathlib.Path('out').iterdir())))
subprocess.run([sys.executable, '-c', {WORKER!r}, number])
"""
RUNNER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
sys.path.insert(0, {str(PROJECT)!r})
from pathlib import Path
from steps import Step, Steps
step = Step('demo', '', (sys.executable, '-c', {COMMAND!r}), 'out', resumable=True)
Steps(Path(sys.argv[1]), '1').run([step], print)
"""


def is_alive(group):
    """Whether a process of the group does anything still; those that nobody waits for do not."""
    states = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in states.splitlines()]
    return any(row[0] == str(group) and row[1][0] != "Z" for row in rows)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def start_runner(tmp_path):
    """A runner whose command has a process of its own, as ``mim train`` has."""
    command = [sys.executable, "-c", RUNNER, str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def group_of(tmp_path, name="demo"):
    return json.loads((tmp_path / "steps" / f"{name}.json").read_text())["process_group"]


def test_killed_runner_leaves_nobody_who_writes(tmp_path):
    """After kill -9 of the runner, the next call ends what is left before it starts again."""
    first = start_runner(tmp_path)
    wait_for(lambda: (tmp_path / "out" / "0").exists())
    group = group_of(tmp_path)
    first.kill()
    first.wait()
    assert is_alive(group)
    second = start_runner(tmp_path)
    wait_for(lambda: (tmp_path / "out" / "1").exists())  # it went on: the first file is there
    assert not is_alive(group)
    group = group_of(tmp_path)
    second.send_signal(signal.SIGINT)
    out, _ = second.communicate(timeout=60)
    assert "ending what an earlier call left running (demo)" in out
    assert not is_alive(group)


def test_unknown_step_is_named(tmp_path):
    command = [*RUN, "--steps", "finetune", "--work-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no such step: finetune" in done.stderr


def test_tiny_size_as_a_new_user(tmp_path):
    """All steps work; the second call reuses them and reports again."""
    command = [*RUN, "--size", "tiny", "--work-dir", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["iteration"] for row in summary["cls"]["curve"]] == [6, 12]
    assert [row["iteration"] for row in summary["dap"]["curve"]] == [6, 12]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Fine-tuning from them" in page
    assert "These figures say nothing" in page
    assert (tmp_path / "report" / "boxes.jpg").stat().st_size > 1000
    second = subprocess.run([*command, "--steps", "cls", "dap"], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("finished earlier, reused") == 2


@pytest.mark.slow
def test_goes_on_after_kill(tmp_path):
    """The runner is killed in each step, at its first line of progress; calls go on to the end."""
    command = [*RUN, "--size", "tiny", "--work-dir", str(tmp_path)]
    for mark in ("[data]", "classifier: Iter", "pretrain_dap: Iter", "cls: Iter", "[report]"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = iter(process.stdout)
            seen = [next(lines)]
            while mark not in seen[-1]:
                seen.append(next(lines))
            os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("data", "classifier", "pretrain_dap", "dap", "cls"):
        assert f"[{name}] finished earlier, reused" in done.stdout
    assert "DAP AP50" in done.stdout


@pytest.mark.slow
def test_dap_has_the_head_start(tmp_path):
    """The promise for one seed: +20 AP50 at a sixth of the schedule, +4 at its end."""
    done = subprocess.run([*RUN, "--work-dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    cls, dap = summary["cls"], summary["dap"]
    assert dap["curve"][0]["iteration"] * 6 == dap["curve"][-1]["iteration"]
    assert dap["curve"][0]["AP50"] - cls["curve"][0]["AP50"] >= 20
    assert dap["AP50"] - cls["AP50"] >= 4
    page = (tmp_path / "report" / "index.html").read_text()
    assert "MaxBoxAccV2 of 100 maps" in page
    assert "cannot be read" not in page
