"""Tables of the benchmark, worked out by hand."""

import json

import pytest


def test_proposal_table(project, work_dir):
    for seed, recall in enumerate((0.25, 0.35)):
        folder = work_dir / f"seed{seed}" / "20260101_000000"
        folder.mkdir(parents=True)
        (folder / "20260101_000000.json").write_text(json.dumps({"coco/AR@100": recall}))
    text = project["report"].proposal_table({"DAP after": ["seed0", "seed1"], "x": ["seed2"]})
    assert text.splitlines() == ["| RPN | AR@100 |", "| --- | --- |", "| DAP after | 30.0 ± 7.1 |"]


# Arm → (k, seed) → AP at iterations 40 and 80.
ON_THE_WAY = {
    "CLS": {(5, 0): (10, 20), (10, 0): (10, 30), (10, 1): (20, 30)},
    "DAP": {(5, 0): (16, 26), (10, 0): (12, 34), (10, 1): (24, 32)},
    "centre": {(10, 0): (11, 30), (10, 1): (22,)},
    "CLS-long": {(10, 0): (15, 15)},
    "DAP-long": {(10, 0): (15, 18)},
}


@pytest.fixture
def on_the_way():
    return {
        name: {
            key: {("AP", 40 * (i + 1)): float(value) for i, value in enumerate(values)}
            for key, values in runs.items()
        }
        for name, runs in ON_THE_WAY.items()
    }


def test_way_table(project, on_the_way):
    assert project["report"].way_table(on_the_way).splitlines() == [
        "| arm | images | AP at 40 | AP at 80 |",
        "| --- | --- | --- | --- |",
        "| CLS | 5 | 10.0 | 20.0 |",
        "| CLS | 10 | 15.0 ± 7.1 | 30.0 ± 0.0 |",
        "| DAP | 5 | 16.0 | 26.0 |",
        "| DAP | 10 | 18.0 ± 8.5 | 33.0 ± 1.4 |",
        "| centre | 10 | 16.5 ± 7.8 | 30.0 |",
        "| CLS-long | 10 | 15.0 | 15.0 |",
        "| DAP-long | 10 | 15.0 | 18.0 |",
    ]


def test_paired_table(project, on_the_way):
    """6, 2, 4 have the mean 4 and the standard error 2/√3 = 1.15; each arm has its own twin."""
    assert project["report"].paired_table(on_the_way, [10]).splitlines() == [
        "| pairs | AP at 40 | AP at 80 |",
        "| --- | --- | --- |",
        "| DAP - CLS, all k | +4.0 ± 1.2, 3 of 3 | +4.0 ± 1.2, 3 of 3 |",
        "| DAP - CLS, 10 images | +3.0 ± 1.0, 2 of 2 | +3.0 ± 1.0, 2 of 2 |",
        "| centre - CLS, 10 images | +1.5 ± 0.5, 2 of 2 | +0.0 |",
        "| centre - DAP, 10 images | -1.5 ± 0.5, 0 of 2 | -4.0 |",
        "| DAP-long - CLS-long, 10 images | +0.0 | +3.0 |",
    ]
    assert project["report"].paired_table({"CLS": on_the_way["CLS"]}, [10]) == ""


def test_nothing_detected_is_an_ap_of_zero(project, work_dir, make_plan):
    """MMDetection logs no figure then. An unfinished training has no result."""
    plan = make_plan(seeds=(0, 1))
    plan.arms["CLS"] = {5: ["run0/iter_80.pth", "run1/iter_80.pth"]}
    log = work_dir / "run0" / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    rows = [
        {"loss": 1.0, "iter": 40, "step": 40},
        {"time": 0.1, "step": 40},
        {"loss": 1.0, "iter": 80, "step": 80},
        {"coco/bbox_mAP": 0.125, "coco/bbox_mAP_50": 0.5, "time": 0.1, "step": 80},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert project["report"].measured(plan) == {"CLS": {}}
    (work_dir / "run0" / "iter_80.pth").touch()
    assert project["report"].measured(plan) == {
        "CLS": {(5, 0): {("AP", 40): 0, ("AP", 80): 12.5, ("AP50", 40): 0, ("AP50", 80): 50}}
    }


def test_missing_results_are_an_error(project, make_plan):
    plan = make_plan("core")
    with pytest.raises(ValueError, match=r"no two ways of pre-training have a result"):
        project["report"].write_report(plan)
