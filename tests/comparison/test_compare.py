"""Tables of tools/compare.py, worked out by hand from hand-made logs, and from real ones."""

import csv
import json

import pytest
from mmengine.config import Config

from dap.comparison import compare
from dap.comparison.runs import group_runs
from tests.support import tiny_runner
from tests.support.work_dirs import DAP, rows, warnings, write_config, write_run

pytestmark = pytest.mark.usefixtures("no_drawing")


class TestTable:
    def test_means_deviations_and_gains(self, four_runs, tmp_path):
        """40 and 44: 42 ± sqrt(8) = 2.83; 51 and 53: 52 ± sqrt(2) = 1.41; Δ = 10."""
        report = compare(four_runs, tmp_path / "out")
        assert rows(report) == [
            "|  | seeds | AP50 |",
            "| --- | --- | --- |",
            "| cls | 2 | 42.00 ± 2.83 |",
            "| dap | 2 | 52.00 ± 1.41 |",
            "| Δ to cls |  | +10.00 |",
        ]
        assert "Last validation of each run." in report
        assert warnings(report) == []

    def test_files(self, four_runs, tmp_path):
        report = compare(four_runs, tmp_path / "out")
        table = (tmp_path / "out/table.md").read_text()
        assert rows(table) == rows(report)
        assert (tmp_path / "out/report.md").read_text().startswith(report)
        assert "![curves](curves.png)" in (tmp_path / "out/report.md").read_text()
        lines = list(csv.DictReader((tmp_path / "out/table.csv").open()))
        assert [line["group"] for line in lines] == ["cls", "dap"]
        assert lines[1] == {
            "group": "dap",
            "shots": "",
            "metric": "AP50",
            "name_in_log": "coco/bbox_mAP_50",
            "mean": "52",
            "deviation": "1.414213562",
            "n": "2",
            "values": "51 53",
            "difference": "10",
            "reference": "cls",
        }

    def test_named_groups_and_another_reference(self, four_runs, tmp_path):
        named = [
            f"C&A 100%={four_runs[0]},{four_runs[1]}",
            f"DAP_1={four_runs[2]}",
            f"DAP_1={four_runs[3]}",
        ]
        report = compare(named, tmp_path / "out", reference="DAP_1")
        assert [line.split(" | ")[0] for line in rows(report)[2:]] == [
            "| C&A 100%", "| Δ to DAP_1", "| DAP_1",
        ]  # fmt: skip
        assert rows(report)[3].endswith("| -10.00 |")
        latex = (tmp_path / "out/table.tex").read_text()
        assert latex.splitlines()[-9:] == [
            r"\begin{tabular}{lrr}",
            r"\hline",
            r" & seeds & AP50 \\",
            r"\hline",
            r"C\&A 100\% & 2 & 42.00 $\pm$ 2.83 \\",
            r"$\Delta$ to DAP\_1 &  & -10.00 \\",
            r"DAP\_1 & 2 & 52.00 $\pm$ 1.41 \\",
            r"\hline",
            r"\end{tabular}",
        ]
        comments = latex.splitlines()[:-9]
        assert all(line.startswith("% ") for line in comments)

    def test_patterns_after_a_name(self, four_runs, tmp_path):
        groups = group_runs([f"CLS={tmp_path}/cls_*", f"DAP={tmp_path}/dap_*"])
        assert [(g.name, [r.folder.name for r in g.runs]) for g in groups] == [
            ("CLS", ["cls_seed0", "cls_seed1"]),
            ("DAP", ["dap_seed0", "dap_seed1"]),
        ]

    def test_one_run_has_no_deviation_and_is_no_evidence(self, four_runs, tmp_path):
        report = compare([four_runs[0], four_runs[2]], tmp_path / "out")
        assert rows(report)[2:] == [
            "| cls | 1 | 40.00 |",
            "| dap | 1 | 51.00 |",
            "| Δ to cls |  | +11.00 |",
        ]
        (warning,) = warnings(report)
        assert "cls, dap: one run is no evidence" in warning
        assert "79.93" in warning
        assert "79.52" in warning

    def test_columns_of_coco(self, tmp_path):
        """All six in the paper's order. Cells of -1 and of missing metrics stay empty."""
        names = {"mAP_l": -1.0, "mAP_s": 0.1, "mAP": 0.25, "mAP_75": 0.2, "mAP_50": 0.5}
        full = {f"coco/bbox_{name}": value for name, value in names.items()}
        cls = write_run(tmp_path / "cls", {50: full | {"coco/bbox_mAP_m": 0.3}})
        dap = write_run(tmp_path / "dap", {50: {"coco/bbox_mAP": 0.375}}, DAP)
        assert rows(compare([cls, dap], tmp_path / "out")) == [
            "|  | seeds | AP | AP50 | AP75 | APs | APm | APl |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            "| cls | 1 | 25.00 | 50.00 | 20.00 | 10.00 | 30.00 |  |",
            "| dap | 1 | 37.50 |  |  |  |  |  |",
            "| Δ to cls |  | +12.50 |  |  |  |  |  |",
        ]

    def test_cell_with_fewer_values_than_runs(self, tmp_path):
        one = write_run(tmp_path / "seed0/cls", {50: {"coco/bbox_mAP": 0.25, "coco/other": 1}})
        two = write_run(tmp_path / "seed1/cls", {50: {"coco/bbox_mAP": float("nan")}}, seed=1)
        assert rows(compare([one, two], tmp_path / "out"))[2] == "| cls | 2 | 25.00 (n=1) |"

    def test_columns_of_voc(self, tmp_path):
        """The unrounded value is shown, for both metrics of our VOC configs."""
        results = {"mAP": 0.79934, "AP50": 0.799}
        both = {f"voc_area/{name}": value for name, value in results.items()}
        both |= {f"voc_07/{name}": value - 0.01 for name, value in results.items()}
        run = write_run(tmp_path / "cls", {50: both})
        assert rows(compare([run], tmp_path / "out")) == [
            "|  | seeds | AP50 | AP50 11 points |",
            "| --- | --- | --- | --- |",
            "| cls | 1 | 79.93 | 78.93 |",
        ]

    def test_voc_metric_with_several_thresholds(self, tmp_path):
        results = {"pascal_voc/mAP": 0.5, "pascal_voc/AP50": 0.75, "pascal_voc/AP75": 0.25}
        table = rows(compare([write_run(tmp_path / "cls", {5: results})], tmp_path / "out"))
        assert (table[0], table[2]) == (
            "|  | seeds | AP50 | AP75 | mAP |",
            "| cls | 1 | 75.00 | 25.00 | 50.00 |",
        )

    def test_two_metrics_of_one_label_are_told_apart(self, tmp_path):
        results = {"a/bbox_mAP": 0.5, "b/bbox_mAP": 0.25}
        table = rows(compare([write_run(tmp_path / "cls", {5: results})], tmp_path / "out"))
        assert table[0] == "|  | seeds | AP (a) | AP (b) |"

    def test_other_metrics_have_their_own_names_and_units(self, tmp_path):
        results = {"accuracy/top1": 62.5, "score/double": -0.5}
        run = write_run(tmp_path / "cls", {5: results})
        table = rows(compare([run], tmp_path / "out"))
        assert (table[0], table[2]) == (
            "|  | seeds | accuracy/top1 | score/double |",
            "| cls | 1 | 62.50 | -0.50 |",
        )

    def test_shares_of_box_localization_are_in_percent(self, tmp_path):
        results = {"localization/corloc": 0.625, "localization/precision_small": -1}
        table = rows(compare([write_run(tmp_path / "cls", {5: results})], tmp_path / "out"))
        assert table[2].split("|")[3:5] == [" 62.50 ", "  "]

    def test_coco_metric_of_proposals_beside_that_of_classes(self, tmp_path):
        """The mAP of proposals is over IoU .5 to .95, unlike that of VOCMetric."""
        results = {"coco/bbox_mAP": 0.5, "agnostic/mAP": 0.25, "agnostic/mAP_50": 0.75}
        run = write_run(tmp_path / "cls", {5: results})
        names = ["AP", "agnostic/mAP", "agnostic/mAP_50"]
        table = rows(compare([run], tmp_path / "out", metrics=names))
        assert (table[0], table[2]) == (
            "|  | seeds | AP | agnostic/mAP | agnostic/mAP_50 |",
            "| cls | 1 | 50.00 | 25.00 | 75.00 |",
        )

    def test_chosen_metrics(self, tmp_path):
        results = {"coco/bbox_mAP": 0.25, "coco/bbox_mAP_50": 0.5, "coco/segm_mAP": 0.125}
        run = write_run(tmp_path / "cls", {5: results})
        names = ["coco/segm_mAP", "AP"]
        table = rows(compare([run], tmp_path / "out", metrics=names))
        assert (table[0], table[2]) == (
            "|  | seeds | coco/segm_mAP | AP |",
            "| cls | 1 | 12.50 | 25.00 |",
        )
        with pytest.raises(ValueError, match=r"metric 'AP99': expected one of \['AP', 'AP50'"):
            compare([run], tmp_path / "out", metrics=["AP99"])

    def test_best_validation(self, tmp_path):
        lines = {
            i: {"coco/bbox_mAP": ap, "coco/bbox_mAP_50": ap50}
            for i, ap, ap50 in ((25, 0.25, 0.75), (50, 0.5, 0.5), (75, 0.375, 0.625))
        }
        report = compare([write_run(tmp_path / "cls", lines)], tmp_path / "out", best="AP")
        assert rows(report)[2] == "| cls | 1 | 50.00 | 50.00 |"
        assert "Validation with the best AP of each run, chosen on the images" in report

    def test_figures_of_a_test(self, tmp_path):
        """A run without validation shows its newest test, also one in its folder ``test``."""
        for stamp, value in (("20260102_000000", 0.25), ("20260103_000000", 0.5)):
            place = tmp_path / "dap" / ("test" if value == 0.5 else ".") / stamp
            (place / "vis_data").mkdir(parents=True)
            (place / f"{stamp}.json").write_text(json.dumps({"coco/bbox_mAP_50": value}))
            write_config(place / "vis_data/config.py", DAP)
        run = write_run(tmp_path / "cls", {50: 40})
        report = compare([run, str(tmp_path / "dap")], tmp_path / "out")
        assert rows(report)[2:4] == ["| cls | 1 | 40.00 |", "| dap | 1 | 50.00 |"]
        assert "or its last test where it has none" in report
        assert any("some from tests" in line for line in warnings(report))


def test_real_runs(tmp_path):
    """Two runs of MMEngine, with its own logs, configs and seeds."""
    for seed in (0, 1):
        settings = {"randomness": {"seed": seed}, "experiment_name": f"line{seed}"}
        config = Config({"model": {"type": "Line"}, **settings})
        tiny_runner.make_runner(tmp_path / f"line_seed{seed}", 2, cfg=config, **settings).train()
    report = compare([str(tmp_path / "line_seed0"), str(tmp_path / "line_seed1")], tmp_path / "out")
    assert rows(report) == [
        "|  | seeds | score/double | score/single | score/count |",
        "| --- | --- | --- | --- | --- |",
        "| line | 2 | 0.50 ± 0.00 | 0.50 ± 0.00 | 3.00 ± 0.00 |",
    ]
    assert "- line: seed 0, 1; from no checkpoint" in report
    (group,) = group_runs([str(tmp_path / "line_seed0"), str(tmp_path / "line_seed1")])
    assert [[row["iteration"] for row in run.validations] for run in group.runs] == [[2, 4]] * 2


def test_tool(four_runs, tmp_path, monkeypatch, run_here):
    monkeypatch.chdir(tmp_path)
    done = run_here("compare", "--out", "here", *four_runs)
    assert done.returncode == 0, done.stderr
    assert "| dap | 2 | 52.00 ± 1.41 |" in done.stdout
    assert (tmp_path / "here/curves.svg").exists()
    done = run_here("compare", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing is no folder; expected the work dir")
