"""The table that is made of finished tests, beside the figures of the paper."""

import json
from pathlib import Path

from dap.experiments import Cell, ConfigTree, Plan, Row, Run, find_experiment
from dap.experiments.results import table

TREE = ConfigTree()
CLS = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"


def test_table_of_means_and_gains(tmp_path):
    """Seeds 0 and 1: CLS 70 and 72, DAP 75 and 79 give 71 ± 1.41, 77 ± 2.83, Δ +6."""
    plan = Plan(TREE, root=str(tmp_path))
    dap = CLS.replace("cls", "dap")
    for name, figures in ((CLS, (0.70, 0.72)), (dap, (0.75, 0.79))):
        for seed, figure in enumerate(figures):
            for stamp, value in (("20260101_000000", 0.5), ("20260102_000000", figure)):
                folder = tmp_path / f"{name}_seed{seed}" / "test" / stamp
                folder.mkdir(parents=True)
                (folder / f"{stamp}.json").write_text(json.dumps({"voc_area/mAP": value}))
    rows = find_experiment("table2").select(("07",))[:2]
    rows = [Row(row.name, row.cells[:1], row.against) for row in rows]
    assert table(rows, plan, (0, 1)).splitlines() == [
        "|  | AP50, paper | yours |",
        "| --- | --- | --- |",
        "| 07 cls-in1k | 77.36 | 71.00 ± 1.41 |",
        "| 07 dap-in1k | 79.93 | 77.00 ± 2.83 |",
        "| Δ to 07 cls-in1k | +2.57 | +6.00 |",
    ]


def test_cells_without_a_figure_stay_empty(tmp_path):
    rows = find_experiment("table6").select(("cls-in1k",))
    line = table(rows, Plan(TREE, root=str(tmp_path)), (None,)).splitlines()[-1]
    assert line.startswith("| cls-in1k | 36.22 |  | 55.11 |  |")


def test_figures_of_the_paper_that_do_not_fit_are_named(tmp_path):
    """Table 1: 48.34 - 48.51 = -.17, but the paper prints Δ +0.83."""
    rows = find_experiment("table1").rows
    text = table(rows, Plan(TREE, root=str(tmp_path)), (None,))
    assert "| 40.64 |  | 48.34 † |  |" in text
    assert "| +1.08 |  | -0.17 † |  |" in text
    (note,) = [line for line in text.splitlines() if line.startswith("†")]
    assert "48.34 and, in the same table, a difference of +0.83 to the 48.51 of CLS" in note
    readme = " ".join(Path("configs/finetune/coco/README.md").read_text().split())
    assert note in readme
    others = table(find_experiment("table4").rows, Plan(TREE, root=str(tmp_path)), (None,))
    assert "†" not in others


def test_figures_of_boxes(tmp_path):
    plan = Plan(TREE, root=str(tmp_path))
    folder = tmp_path / "boxes_resnet50_in1k"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"merged": {"boxes_per_image": 3.2113}}))
    cell = Cell("boxes/image", Run("boxes_resnet50_in1k"), "merged.boxes_per_image", 3.211, 3)
    assert table([Row("x", (cell,))], plan, (None,)).splitlines()[-1] == "| x | 3.211 | 3.211 |"


def test_steps_that_measure_nothing_have_no_table(tmp_path):
    assert table(find_experiment("step3").rows, Plan(TREE, root=str(tmp_path)), (None,)) == ""
