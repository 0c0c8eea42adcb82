"""Curves: read from logs, and drawn."""

import json

import cv2
import numpy as np
import pytest

from dap.comparison import draw_curves, read_curve

METRICS = {"AP50": "coco/bbox_mAP_50"}


def write_log(folder, rows, started="20260101_000000"):
    path = folder / started / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("steps", [(25, 50), (0, 0), (1, 2)])
def test_curve_counts_iterations_however_the_runner_logs(tmp_path, steps):
    write_log(tmp_path, [
        {"loss": 1.0, "iter": 25, "step": 25},
        {"coco/bbox_mAP_50": 0.125, "step": steps[0]},
        {"loss": 1.0, "iter": 50, "step": 50},
        {"coco/bbox_mAP_50": 0.5, "step": steps[1]},
    ])  # fmt: skip
    assert read_curve(tmp_path, METRICS) == [
        {"iteration": 25, "AP50": 12.5},
        {"iteration": 50, "AP50": 50.0},
    ]


def test_run_without_validation_is_named(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        read_curve(tmp_path, METRICS)
    write_log(tmp_path, [{"loss": 1.0, "iter": 25, "step": 25}])
    with pytest.raises(ValueError, match="no validation"):
        read_curve(tmp_path, METRICS)


def trained(*iterations):
    return [{"loss": 1.0, "iter": i, "step": i} for i in iterations]


def validated(percent, step):
    return [{"coco/bbox_mAP_50": percent / 100, "step": step}]


# Lines of the log of a run that was killed, those of the run after it, what the curve is.
RESTARTS = {
    "resumed by iteration": (
        [*trained(50, 100), *validated(10, 100), *trained(150, 200), *validated(20, 200),
         *trained(250)],
        [*trained(150, 200), *validated(25, 200), *trained(250, 300), *validated(30, 300)],
        {100: 10, 200: 25, 300: 30},
    ),
    "validated before the first line": (
        [*validated(5, 25), *trained(50), *validated(10, 50), *validated(15, 75), *trained(100)],
        [*validated(16, 75), *trained(100), *validated(20, 100)],
        {25: 5, 50: 10, 75: 16, 100: 20},
    ),
    "resumed by epoch": (
        [*trained(50, 100), *validated(10, 1), *trained(150, 200), *validated(20, 2),
         *trained(250, 300), *validated(30, 3)],
        [*trained(250, 300), *validated(35, 3), *trained(350, 400), *validated(40, 4)],
        {100: 10, 200: 20, 300: 35, 400: 40},
    ),
    "resumed, steps 0": (
        [*trained(50, 100), *validated(10, 0), *trained(150, 200), *validated(20, 0)],
        [*trained(150, 200), *validated(25, 0)],
        {100: 10, 200: 25},
    ),
    "fresh run": (
        [*trained(50, 100), *validated(10, 100), *trained(150, 200), *validated(20, 200)],
        [*trained(50, 100), *validated(12, 100)],
        {100: 12},
    ),
    "no validation left": (
        [*trained(50, 100), *validated(10, 100), *trained(150)],
        trained(150),
        {100: 10},
    ),
    "nothing logged": ([*trained(50, 100), *validated(10, 100)], [], {100: 10}),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTARTS)
def test_curve_of_a_run_in_several_logs(tmp_path, case):
    killed, restarted, expected = RESTARTS[case]
    write_log(tmp_path, restarted, "20260102_000000")
    write_log(tmp_path, killed)
    curve = read_curve(tmp_path, METRICS)
    assert [(row["iteration"], row["AP50"]) for row in curve] == [
        (iteration, pytest.approx(percent)) for iteration, percent in expected.items()
    ]


def test_fresh_run_without_validation_has_no_curve_of_the_run_before(tmp_path):
    write_log(tmp_path, [*trained(50), *validated(10, 50)])
    write_log(tmp_path, trained(50), "20260102_000000")
    with pytest.raises(ValueError, match=r"no validation .* 2 log"):
        read_curve(tmp_path, METRICS)


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_curves_are_drawn(tmp_path, name):
    rows = [{"iteration": i, "AP50": i / 2} for i in (25, 50)]
    path = draw_curves({"cls": rows, "dap": rows}, ["AP50"], tmp_path / name)
    assert path.stat().st_size > 5000
    if name.endswith("png"):
        assert len(np.unique(cv2.imread(str(path)).reshape(-1, 3), axis=0)) > 10
