"""``tools/compare.py`` on hand-made logs whose tables are worked out by hand, and on real ones."""

import copy
import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_runner
from mmengine.config import Config

from dap.comparison import compare, comparison
from dap.comparison.config_difference import (
    differences,
    initialisation,
    is_initialisation,
    result_values,
    shortened,
    shots_of,
)
from dap.comparison.head_start import reaching
from dap.comparison.runs import group_runs
from dap.experiments import ConfigTree
from dap.experiments.schedule import k_shot_options

TREE = ConfigTree()
CLS = {
    "model": {
        "type": "FasterRCNN",
        "backbone": {
            "frozen_stages": 1,
            "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"},
        },
    },
    "train_dataloader": {"batch_size": 2, "num_workers": 2, "dataset": {"ann_file": "train.json"}},
    "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.02}},
    "val_evaluator": {"type": "CocoMetric", "ann_file": "val.json"},
    "test_evaluator": {"type": "CocoMetric", "ann_file": "test.json"},
    "default_hooks": {"logger": {"type": "LoggerHook", "interval": 25}},
}
PRETRAINED = {"type": "dap.PretrainedDetector", "checkpoint": "detector/iter_900-0b58d999.pth"}


def changed(config, **values):
    """A config with other values, whose keys have ``__`` for dots."""
    config = copy.deepcopy(config)
    for key, value in values.items():
        *path, last = key.split("__")
        part = config
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    return config


DAP = changed(CLS, model__init_cfg=PRETRAINED, model__backbone__init_cfg=None)


def shot(config, k, seed=0):
    file = f"data/few_shot/voc0712_{k}shot_seed{seed}/annotations.json"
    return changed(config, train_dataloader__dataset__ann_file=file)


def write_run(folder, ap50, config=CLS, seed=0, started="20260101_000000", key="coco/bbox_mAP_50"):
    """A finished run: AP50 in percent by iteration, or a whole line of the log."""
    place = folder / started / "vis_data"
    place.mkdir(parents=True)
    lines = []
    for iteration, value in ap50.items():
        results = value if isinstance(value, dict) else {key: value / 100}
        lines += [{"loss": 1.0, "lr": 0.02, "iter": iteration, "step": iteration}]
        lines += [{**results, "time": 0.1, "step": iteration}]
    (place / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config is not None:
        write_config(place / "config.py", config, seed)
    return str(folder)


def write_config(path, config, seed=0):
    whole = changed(config, work_dir=str(path), **({"randomness": {"seed": seed}}))
    if seed is None:
        del whole["randomness"]
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in whole.items()))


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    """Drawing takes most of the time: empty files, but in tests that look at the pictures."""
    if request.cls in (TestKShot, TestPictures):
        return

    def draw(curves, metrics, out, *_):
        out.touch()
        return out

    monkeypatch.setattr(comparison, "draw_curves", draw)
    monkeypatch.setattr(comparison, "draw_k_shot", draw)


@pytest.fixture
def four(tmp_path):
    """CLS and DAP, two seeds each: at 25, 50 and 100 iterations CLS 12, 22, 42, DAP 32, 47, 52."""
    return [
        write_run(tmp_path / "cls_seed0", {25: 10, 50: 20, 100: 40}, CLS, 0),
        write_run(tmp_path / "cls_seed1", {25: 14, 50: 24, 100: 44}, CLS, 1),
        write_run(tmp_path / "dap_seed0", {25: 30, 50: 45, 100: 51}, DAP, 0),
        write_run(tmp_path / "dap_seed1", {25: 34, 50: 49, 100: 53}, DAP, 1),
    ]


def rows(report):
    """The lines of the first table of a report."""
    return [line for line in report.splitlines() if line.startswith("|")]


def warnings(report):
    _, _, after = report.partition("## Warnings\n\n")
    return after.partition("\n\n##")[0].splitlines()


class TestTable:
    def test_means_deviations_and_gains(self, four, tmp_path):
        """40 and 44: 42 ± sqrt(8) = 2.83; 51 and 53: 52 ± sqrt(2) = 1.41; Δ = 10."""
        report = compare(four, tmp_path / "out")
        assert rows(report) == [
            "|  | seeds | AP50 |",
            "| --- | --- | --- |",
            "| cls | 2 | 42.00 ± 2.83 |",
            "| dap | 2 | 52.00 ± 1.41 |",
            "| Δ to cls |  | +10.00 |",
        ]
        assert "Last validation of each run." in report
        assert warnings(report) == []

    def test_files(self, four, tmp_path):
        report = compare(four, tmp_path / "out")
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

    def test_named_groups_and_another_reference(self, four, tmp_path):
        named = [f"C&A 100%={four[0]},{four[1]}", f"DAP_1={four[2]}", f"DAP_1={four[3]}"]
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

    def test_patterns_after_a_name(self, four, tmp_path):
        groups = group_runs([f"CLS={tmp_path}/cls_*", f"DAP={tmp_path}/dap_*"])
        assert [(g.name, [r.folder.name for r in g.runs]) for g in groups] == [
            ("CLS", ["cls_seed0", "cls_seed1"]),
            ("DAP", ["dap_seed0", "dap_seed1"]),
        ]

    def test_one_run_has_no_deviation_and_is_no_evidence(self, four, tmp_path):
        report = compare([four[0], four[2]], tmp_path / "out")
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
        """All six, in the paper's order; -1 and what a run has not stay empty."""
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
        """The value in full in place of the rounded one; both metrics of our VOC configs."""
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
        """Its mAP is over IoU .5 to .95, unlike VOCMetric's."""
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
        """The newest, in the work directory or in its folder test, where nothing was validated."""
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


class TestHeadStart:
    def test_in_words(self, four, tmp_path):
        """CLS goes from 22 at 50 to 42 at 100 and passes 32 at 75, three times 25."""
        report = compare(four, tmp_path / "out")
        assert (
            "- At iteration 25 dap has AP50 32.0 against cls 12.0: +20.0 (mean of 2 seeds). "
            "cls reaches 32.0 at iteration 75 (interpolated), 3.0 times as many. "
            "At iteration 100, the last of both: +10.0."
        ) in report.splitlines()

    def test_at_other_iterations(self, four, tmp_path):
        report = compare(four, tmp_path / "out", at=[50, 100])
        assert (
            "- At iteration 50 dap has AP50 47.0 against cls 22.0: +25.0 (mean of 2 seeds). "
            "cls does not reach 47.0 by iteration 100, its last. "
            "At iteration 100 dap has AP50 52.0 against cls 42.0: +10.0 (mean of 2 seeds)."
        ) in report.splitlines()
        with pytest.raises(ValueError, match=r"--at 60: expected an iteration .*\[25, 50, 100\]"):
            compare(four, tmp_path / "out", at=[60])

    def test_reached_before_the_next_validation(self, tmp_path):
        """CLS goes from 22 at 50 to 42 at 100 and passes 32 at 75."""
        cls = write_run(tmp_path / "cls", {25: 40, 50: 22, 100: 42})
        dap = write_run(tmp_path / "dap", {25: 42, 50: 32, 100: 50}, DAP)
        report = compare([cls, dap], tmp_path / "out", at=[50])
        assert "cls reaches 32.0 at iteration 75 (interpolated), 1.5 times as many." in report

    def test_validation_before_the_first_iteration(self, tmp_path):
        """A start of 0 has no number of times."""
        cls, dap = (
            write_run(
                tmp_path / name, {0: {"coco/bbox_mAP_50": first}, 5: {"coco/bbox_mAP_50": 0.5}}
            )
            for name, first in (("cls", 0.1), ("dap", 0.3))
        )
        said = compare([f"CLS={cls}", f"DAP={dap}"], tmp_path / "out")
        assert "CLS reaches 30.0 at iteration 2 (interpolated)." in said

    def test_one_that_is_behind(self, four, tmp_path):
        report = compare([four[2], four[0]], tmp_path / "out")
        assert (
            "- At iteration 25 cls has AP50 10.0 against dap 30.0: -20.0 (one run each). "
            "At iteration 100, the last of both: -11.0."
        ) in report.splitlines()

    @pytest.mark.parametrize(
        ("value", "iteration"), [(10, 25.0), (5, 25.0), (15, 37.5), (20, 50.0), (26, None)]
    )
    def test_reaching(self, value, iteration):
        assert reaching([(25, 10), (50, 20), (75, 18), (100, 25)], value) == iteration

    def test_only_iterations_of_all_seeds(self, tmp_path):
        cls = [
            write_run(tmp_path / "cls_seed0", {25: 10, 50: 20}, CLS, 0),
            write_run(tmp_path / "cls_seed1", {30: 14, 50: 22}, CLS, 1),
        ]
        dap = write_run(tmp_path / "dap_seed0", {25: 30, 50: 45}, DAP, 0)
        report = compare([*cls, dap], tmp_path / "out")
        assert "Head start" not in report  # no curve, and the end stands in the table
        report = compare([*cls, dap], tmp_path / "out", at=[50])
        assert (
            "At iteration 50 dap has AP50 45.0 against cls 21.0: +24.0 (means of 1 and 2" in report
        )
        assert any("2 iterations" in line and "25, 30" in line for line in warnings(report))


class TestLogs:
    def test_resumed_run(self, tmp_path):
        """What was trained anew counts; load_from is that of the first start."""
        start = changed(CLS, load_from="a.pth")
        again = changed(CLS, resume=True, load_from=None)
        run = tmp_path / "cls_seed0"
        write_run(run, {25: 10, 50: 20, 75: 30}, start)
        write_run(run, {75: 35, 100: 40}, again, started="20260102_000000")
        other = write_run(tmp_path / "cls_seed1", {25: 12, 50: 22, 75: 33, 100: 42}, start, 1)
        (group,) = group_runs([str(run), other])
        assert [(p["iteration"], p["coco/bbox_mAP_50"]) for p in group.runs[0].validations] == [
            (25, 0.1), (50, 0.2), (75, 0.35), (100, 0.4),
        ]  # fmt: skip
        assert warnings(compare([str(run), other], tmp_path / "out")) == []

    def test_half_written_last_line_is_left_out_and_said(self, four, tmp_path):
        (log,) = Path(four[0]).glob("*/vis_data/scalars.json")
        log.write_text(log.read_text()[:-20])
        report = compare(four, tmp_path / "out")
        assert rows(report)[2] == "| cls | 2 | 32.00 ± 16.97 |"  # 20 and 44
        said = warnings(report)
        assert any(str(log) in line and "cut off" in line for line in said)

    def test_broken_line_elsewhere_is_an_error(self, four, tmp_path):
        (log,) = Path(four[0]).glob("*/vis_data/scalars.json")
        log.write_text(log.read_text().replace("{", "", 1))
        with pytest.raises(ValueError, match=rf"{re.escape(str(log))}, line 1: .*JSON object"):
            compare(four, tmp_path / "out")

    def test_no_log(self, tmp_path):
        (tmp_path / "cls").mkdir()
        with pytest.raises(ValueError, match=r"cls holds neither .*scalars\.json.* work directory"):
            compare([str(tmp_path / "cls")], tmp_path / "out")
        with pytest.raises(ValueError, match="nothing is no folder"):
            compare([str(tmp_path / "nothing")], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["", '{"loss": 1.0, "iter": 5, "step": 5}\n', '{"loss": 1.'])
    def test_log_without_validation(self, four, text):
        (log,) = Path(four[0]).glob("*/vis_data/scalars.json")
        log.write_text(text)
        with pytest.raises(ValueError, match=r"cls_seed0 holds no result: its 1 log"):
            group_runs(four)

    def test_validation_in_which_nothing_was_detected(self, four, tmp_path):
        """The log has no figure of it: the last one stands, and it is said of which it is not."""
        (log,) = Path(four[0]).glob("*/vis_data/scalars.json")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        last = {key: lines[-1][key] for key in ("time", "step")}
        log.write_text("".join(json.dumps(line) + "\n" for line in (*lines[:-1], last)))
        report = compare(four, tmp_path / "out")
        assert rows(report)[2] == "| cls | 2 | 32.00 ± 16.97 |"  # 20 and 44
        (said,) = (line for line in warnings(report) if "without a figure" in line)
        assert f"cls_seed0: validated at iteration {last['step']} without a figure" in said

    def test_no_validation_detected_anything(self, four, tmp_path):
        """Each validation counts as AP 0: DAP has AP50 30 and 51, CLS 0 and 0."""
        nothing = write_run(tmp_path / "nothing", {25: {}, 100: {}}, CLS)
        report = compare([f"CLS={nothing}", f"DAP={four[2]}"], tmp_path / "out", metrics=["AP50"])
        cls, dap, gain = rows(report)[2:]
        assert (cls, dap) == ("| CLS | 1 | 0.00 |", "| DAP | 1 | 51.00 |")
        assert gain == "| Δ to CLS |  | +51.00 |"
        assert "At iteration 25 DAP has AP50 30.0 against CLS 0.0: +30.0" in report
        assert "At iteration 100, the last of both: +51.0." in report
        (said,) = (line for line in warnings(report) if "AP 0" in line)
        assert "nothing: no validation has a figure (iterations 25, 100)" in said

    def test_neither_twin_detected_anything(self, tmp_path):
        runs = [
            write_run(tmp_path / "cls", {50: {}}, CLS),
            write_run(tmp_path / "dap", {50: {}}, DAP),
        ]
        report = compare(runs, tmp_path / "out")
        assert rows(report)[0] == "|  | seeds | AP | AP50 | AP75 |"
        assert rows(report)[-1] == "| Δ to cls |  | +0.00 | +0.00 | +0.00 |"

    @pytest.mark.parametrize(
        "config",
        [
            None,
            changed(CLS, val_evaluator__format_only=True),
            changed(CLS, val_evaluator={"type": "VOCMetric"}),
        ],
    )
    def test_no_figure_for_another_reason(self, tmp_path, config):
        """Only COCO's metric writes no figure where nothing is detected."""
        nothing = write_run(tmp_path / "nothing", {5: {}}, config)
        with pytest.raises(ValueError, match=r"nothing holds no .*at iteration 5 without a fig"):
            group_runs([nothing])

    def test_folder_given_twice(self, four):
        with pytest.raises(
            ValueError, match=r"cls_seed0/\. is given twice|cls_seed0 is given twice"
        ):
            group_runs([*four, f"{four[0]}/../cls_seed0"])

    def test_unreadable_config(self, four):
        (config,) = Path(four[0]).glob("*/vis_data/config.py")
        config.write_text("model = dict(")
        with pytest.raises(
            ValueError, match=rf"{re.escape(str(config))} cannot be read as a config"
        ):
            group_runs(four)

    def test_unreadable_test(self, tmp_path):
        place = tmp_path / "cls/20260101_000000"
        place.mkdir(parents=True)
        (place / "20260101_000000.json").write_text("[1]")
        with pytest.raises(ValueError, match=r"000000\.json: expected the results of a test"):
            group_runs([str(tmp_path / "cls")])

    def test_config_beside_the_checkpoints(self, tmp_path):
        run = Path(write_run(tmp_path / "cls", {5: 10}, None))
        write_config(run / "cls.py", CLS, 7)
        assert group_runs([str(run)])[0].runs[0].seed == "7"

    def test_run_without_config_is_compared_and_said(self, tmp_path):
        cls = [write_run(tmp_path / f"cls_seed{i}", {5: 10 + i}, None) for i in (0, 1)]
        dap = [write_run(tmp_path / f"dap_seed{i}", {5: 20 + i}, DAP, i) for i in (0, 1)]
        report = compare([*cls, *dap], tmp_path / "out")
        assert rows(report)[4] == "| Δ to cls |  | +10.00 |"
        (warning,) = warnings(report)
        assert "cls: no config in" in warning
        assert "seed unknown, unknown" in report


class TestGroups:
    def test_names_that_are_the_same_take_more_of_their_paths(self, tmp_path):
        first = write_run(tmp_path / "a/cls_seed0", {5: 10})
        other = changed(CLS, optim_wrapper__optimizer__lr=0.01)
        second = write_run(tmp_path / "b/cls_seed0", {5: 10}, other)
        assert [group.name for group in group_runs([first, second])] == ["a/cls", "b/cls"]

    def test_names_that_stay_the_same(self, tmp_path):
        first = write_run(tmp_path / "cls_seed0", {5: 10})
        other = changed(CLS, optim_wrapper__optimizer__lr=0.01)
        second = write_run(tmp_path / "cls_seed1", {5: 10}, other, 1)
        with pytest.raises(ValueError, match=r"cls_seed0, .*cls_seed1 differ .*NAME=DIR"):
            group_runs([first, second])

    def test_folder_that_is_only_a_seed(self, four, tmp_path):
        runs = [write_run(tmp_path / f"cls/seed{i}", {5: 10}, seed=i) for i in (0, 1)]
        assert [(g.name, len(g.runs)) for g in group_runs(runs)] == [("cls", 2)]

    def test_seed_in_a_path_of_the_config_is_no_difference(self, tmp_path):
        runs = [
            write_run(
                tmp_path / f"dap_seed{i}",
                {5: 10},
                changed(
                    DAP,
                    load_from=f"w/cls_seed{i}/e.pth",
                    model__init_cfg={"checkpoint": f"d/iter_9-{i}000000f.pth"},
                ),
                i,
            )
            for i in (0, 1)
        ]
        assert [len(g.runs) for g in group_runs(runs)] == [2]

    @pytest.mark.parametrize("argument", ["=x", "CLS="])
    def test_argument_without_name_or_folder(self, argument):
        with pytest.raises(ValueError, match=r"expected a work directory, or NAME=DIR"):
            group_runs([argument])

    def test_unknown_reference(self, four, tmp_path):
        with pytest.raises(ValueError, match=r"--reference x: .* \['cls', 'dap'\]"):
            compare(four, tmp_path / "out", reference="x")


class TestWarnings:
    def pair(self, tmp_path, config, iterations=(25, 50)):
        runs = []
        for seed in (0, 1):
            runs += [write_run(tmp_path / f"cls_seed{seed}", {25: 10, 50: 20}, CLS, seed)]
            ap50 = dict.fromkeys(iterations, 20)
            runs += [write_run(tmp_path / f"dap_seed{seed}", ap50, config, seed)]
        return compare(runs, tmp_path / "out")

    def test_what_is_no_difference(self, tmp_path):
        same = changed(
            DAP,
            load_from="x.pth",
            train_dataloader__num_workers=8,
            val_evaluator__outfile_prefix="x",
            default_hooks__logger__interval=10,
            visualizer={"type": "x"},
            launcher="pytorch",
        )
        report = self.pair(tmp_path, same)
        assert warnings(report) == []
        assert "## Config" not in report

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("optim_wrapper__optimizer__lr", 0.01, "optim_wrapper.optimizer.lr 0.02 → 0.01"),
            ("model__backbone__frozen_stages", 2, "model.backbone.frozen_stages 1 → 2"),
            ("train_dataloader__batch_size", 4, "train_dataloader.batch_size 2 → 4"),
            ("custom_hooks", [{"type": "EMAHook"}], "custom_hooks.0.type – → 'EMAHook'"),
        ],
    )
    def test_more_than_initialisation(self, tmp_path, key, value, said):
        report = self.pair(tmp_path, changed(DAP, **{key: value}))
        (warning,) = warnings(report)
        assert warning == f"- dap and cls differ in more than initialisation: {said}"
        dotted, before, _, after = said.split(" ")
        assert f"| `{dotted}` | {before} | {after} |" in report

    def test_another_evaluation_file(self, tmp_path):
        report = self.pair(tmp_path, changed(DAP, val_evaluator__ann_file="other.json"))
        assert "- dap and cls are evaluated on different files, so their" in "\n".join(
            warnings(report)
        )
        report = self.pair(tmp_path / "2", changed(DAP, test_evaluator__ann_file="other.json"))
        assert warnings(report) == []

    def test_total_batch_in_place_of_that_of_a_gpu(self):
        one, eight = (
            result_values(changed(CLS, total_batch=16, train_dataloader__batch_size=size))
            for size in (16, 2)
        )
        assert differences(one, eight) == []
        (found,) = differences(one, eight | {"total_batch": 32})
        assert (found.key, found.reference, found.other) == ("total_batch", 16, 32)
        (found,) = differences(result_values(CLS) | {"train_dataloader.batch_size": 4}, eight)
        assert found.key == "train_dataloader.batch_size"

    @pytest.mark.parametrize(
        ("name", "shots"), [("14e_voc07", None), ("voc-kshot", 5), ("coco-kshot", 100)]
    )
    def test_our_twins_differ_in_initialisation_alone(self, name, shots):
        configs = [
            TREE.load(f"faster-rcnn_r50-{start}-in1k_fpn_{name}") for start in ("cls", "dap")
        ]
        if shots:
            for config in configs:
                config.merge_from_dict(k_shot_options(config, f"{shots}shot"))
        cls, dap = (config.to_dict() for config in configs)
        found = differences(result_values(cls), result_values(dap))
        assert found
        assert all(is_initialisation(difference.key) for difference in found)
        assert initialisation(cls) == ["torchvision://resnet50"]
        assert initialisation(dap) == [
            "work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth"
        ]
        assert (shots_of(cls), shots_of(dap)) == (shots, shots)

    def test_unfinished_run(self, tmp_path):
        config = changed(DAP, train_cfg__max_iters=50)
        report = self.pair(tmp_path, config, (25,))
        said = "\n".join(warnings(report))
        assert said.count("is unfinished: iteration 25 of 50") == 2
        assert "trained for different numbers of iterations by their logs: 25 and 50" in said

    def test_runs_of_a_named_group_that_differ(self, four, tmp_path):
        report = compare([f"all={','.join(four)}"], tmp_path / "out")
        said = "\n".join(warnings(report))
        assert "dap_seed0 differs from the first run in more than its seed: model.b" in said
        assert "several runs have the seed 0, 1" in said

    def test_different_seeds(self, four, tmp_path):
        third = write_run(tmp_path / "dap_seed2", {25: 34, 50: 49, 100: 53}, DAP, 2)
        (warning,) = warnings(compare([*four, third], tmp_path / "out"))
        assert "different seeds, 0, 1, 2 and 0, 1: compare runs" in warning

    def test_hash_in_an_address_tells_other_weights(self):
        """That of a file of one's own, which extract_detector gives, is that of a seed."""

        def values(checkpoint):
            return result_values({"model": {"init_cfg": {"checkpoint": checkpoint}}})

        assert values("w/iter_9-0676ba61.pth") == values("w/iter_9-11ad3fa6.pth")
        assert values("https://x/r50-0676ba61.pth") != values("https://x/r50-11ad3fa6.pth")

    def test_pictures_are_housekeeping(self):
        one, other = ({"default_hooks": {"pictures": {"interval": i}}} for i in (1, 2))
        assert result_values(one) == result_values(other) == {}

    def test_long_values_are_cut(self):
        assert shortened("a" * 200) == "'" + "a" * 27 + " … " + "a" * 27 + "'"
        assert shortened(None) == "–"
        assert shortened([1, 2]) == "[1, 2]"


class TestKShot:
    @pytest.fixture
    def runs(self, tmp_path):
        """Two draws at 5 and 10 images per class; CLS alone at 20."""
        found = []
        for name, config, at in (
            ("cls", CLS, {5: 20, 10: 30, 20: 40}),
            ("dap", DAP, {5: 40, 10: 44}),
        ):
            for k, value in at.items():
                length = changed(shot(config, k), train_cfg__max_iters=10 * k)
                for seed in (0, 1):
                    run = tmp_path / f"{name}_voc-{k}shot_seed{seed}"
                    config_of_draw = shot(length, k, seed)
                    found.append(write_run(run, {10 * k: value + 2 * seed}, config_of_draw, seed))
        return found

    def test_table_compares_equal_shots(self, runs, tmp_path):
        report = compare(runs, tmp_path / "out")
        assert rows(report)[2:] == [
            "| cls_voc 5-shot | 2 | 21.00 ± 1.41 |",
            "| dap_voc 5-shot | 2 | 41.00 ± 1.41 |",
            "| Δ to cls_voc 5-shot |  | +20.00 |",
            "| cls_voc 10-shot | 2 | 31.00 ± 1.41 |",
            "| dap_voc 10-shot | 2 | 45.00 ± 1.41 |",
            "| Δ to cls_voc 10-shot |  | +14.00 |",
            "| cls_voc 20-shot | 2 | 41.00 ± 1.41 |",
        ]
        assert warnings(report) == []

    def test_named_group_is_divided_by_shots(self, runs):
        groups = group_runs([f"CLS={','.join(runs[:6])}", f"DAP={','.join(runs[6:])}"])
        assert [group.label for group in groups] == [
            "CLS 5-shot", "CLS 10-shot", "CLS 20-shot", "DAP 5-shot", "DAP 10-shot",
        ]  # fmt: skip

    def test_shots_without_a_twin_are_said(self, runs, tmp_path):
        report = compare(runs, tmp_path / "out", reference="dap_voc")
        (warning,) = warnings(report)
        assert "cls_voc 20-shot: there is no run of dap_voc on 20 images per class" in warning

    def test_picture(self, runs, tmp_path):
        compare(runs, tmp_path / "out")
        svg = (tmp_path / "out/kshot.svg").read_text()
        for text in ("cls_voc", "dap_voc", "images per class", "AP50", ">5<", ">10<", ">20<"):
            assert text in svg
        assert cv2.imread(str(tmp_path / "out/kshot.png")) is not None
        compare(runs[:2], tmp_path / "out")
        assert not (tmp_path / "out/kshot.png").exists()

    def test_seed_of_the_draw(self, tmp_path):
        run = write_run(tmp_path / "cls", {5: 10}, shot(CLS, 5, 3), 0)
        assert group_runs([run])[0].runs[0].seed == "0 (draw 3)"


class TestPictures:
    def test_curves(self, four, tmp_path):
        named = [f"$CLS_1$={four[0]},{four[1]}", f"DAP={four[2]},{four[3]}"]
        compare(named, tmp_path / "out")
        svg = (tmp_path / "out/curves.svg").read_text()
        for text in ("CLS_1", "DAP", "iteration", "AP50"):
            assert text in svg
        png = cv2.imread(str(tmp_path / "out/curves.png"))
        assert len(np.unique(png.reshape(-1, 3), axis=0)) > 50

    def test_band_is_drawn_where_there_are_seeds(self, four, tmp_path):
        compare(four, tmp_path / "two")
        compare([four[0], four[2]], tmp_path / "one")
        bands = [
            (tmp_path / name / "curves.svg").read_text().count("PolyCollection_")
            for name in ("two", "one")
        ]
        assert bands == [2, 0]

    def test_only_tests_have_no_curve(self, tmp_path):
        place = tmp_path / "cls/20260101_000000"
        place.mkdir(parents=True)
        (place / "20260101_000000.json").write_text('{"coco/bbox_mAP": 0.5}')
        compare([str(tmp_path / "cls")], tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "report.md", "table.md", "table.csv", "table.tex",
        }  # fmt: skip


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


def test_tool(four, tmp_path, monkeypatch, run_here):
    monkeypatch.chdir(tmp_path)
    done = run_here("compare", "--out", "here", *four)
    assert done.returncode == 0, done.stderr
    assert "| dap | 2 | 52.00 ± 1.41 |" in done.stdout
    assert (tmp_path / "here/curves.svg").exists()
    done = run_here("compare", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing is no folder; expected the work dir")
