"""Logs that tools/compare.py reads, and how it groups their work directories."""

import json
import re
from pathlib import Path

import pytest

from dap.comparison import compare
from dap.comparison.runs import group_runs
from tests.support.work_dirs import CLS, DAP, changed, rows, warnings, write_config, write_run

pytestmark = pytest.mark.usefixtures("no_drawing")


class TestLogs:
    def test_resumed_run(self, tmp_path):
        """Repeated iterations count as of the second start; load_from is that of the first."""
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

    def test_half_written_last_line_is_left_out_with_a_warning(self, four_runs, tmp_path):
        (log,) = Path(four_runs[0]).glob("*/vis_data/scalars.json")
        log.write_text(log.read_text()[:-20])
        report = compare(four_runs, tmp_path / "out")
        assert rows(report)[2] == "| cls | 2 | 32.00 ± 16.97 |"  # 20 and 44
        said = warnings(report)
        assert any(str(log) in line and "cut off" in line for line in said)

    def test_broken_line_elsewhere_is_an_error(self, four_runs, tmp_path):
        (log,) = Path(four_runs[0]).glob("*/vis_data/scalars.json")
        log.write_text(log.read_text().replace("{", "", 1))
        with pytest.raises(ValueError, match=rf"{re.escape(str(log))}, line 1: .*JSON object"):
            compare(four_runs, tmp_path / "out")

    def test_no_log(self, tmp_path):
        (tmp_path / "cls").mkdir()
        with pytest.raises(ValueError, match=r"cls holds neither .*scalars\.json.* work directory"):
            compare([str(tmp_path / "cls")], tmp_path / "out")
        with pytest.raises(ValueError, match="nothing is no folder"):
            compare([str(tmp_path / "nothing")], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["", '{"loss": 1.0, "iter": 5, "step": 5}\n', '{"loss": 1.'])
    def test_log_without_validation(self, four_runs, text):
        (log,) = Path(four_runs[0]).glob("*/vis_data/scalars.json")
        log.write_text(text)
        with pytest.raises(ValueError, match=r"cls_seed0 holds no result: its 1 log"):
            group_runs(four_runs)

    def test_validation_in_which_nothing_was_detected(self, four_runs, tmp_path):
        """Its log line has no figures: the validation before it counts, and a warning says so."""
        (log,) = Path(four_runs[0]).glob("*/vis_data/scalars.json")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        last = {key: lines[-1][key] for key in ("time", "step")}
        log.write_text("".join(json.dumps(line) + "\n" for line in (*lines[:-1], last)))
        report = compare(four_runs, tmp_path / "out")
        assert rows(report)[2] == "| cls | 2 | 32.00 ± 16.97 |"  # 20 and 44
        (said,) = (line for line in warnings(report) if "without a figure" in line)
        assert f"cls_seed0: validated at iteration {last['step']} without a figure" in said

    def test_no_validation_detected_anything(self, four_runs, tmp_path):
        """Each validation counts as AP 0: DAP has AP50 30 and 51, CLS 0 and 0."""
        nothing = write_run(tmp_path / "nothing", {25: {}, 100: {}}, CLS)
        runs = [f"CLS={nothing}", f"DAP={four_runs[2]}"]
        report = compare(runs, tmp_path / "out", metrics=["AP50"])
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
            changed(CLS, val_evaluator__metric="proposal"),
            changed(CLS, val_evaluator={"type": "VOCMetric"}),
        ],
    )
    def test_no_figure_for_another_reason(self, tmp_path, config):
        """Only COCO's metric writes no figure where nothing is detected."""
        nothing = write_run(tmp_path / "nothing", {5: {}}, config)
        with pytest.raises(ValueError, match=r"nothing holds no .*at iteration 5 without a fig"):
            group_runs([nothing])

    def test_folder_given_twice(self, four_runs):
        with pytest.raises(
            ValueError, match=r"cls_seed0/\. is given twice|cls_seed0 is given twice"
        ):
            group_runs([*four_runs, f"{four_runs[0]}/../cls_seed0"])

    def test_unreadable_config(self, four_runs):
        (config,) = Path(four_runs[0]).glob("*/vis_data/config.py")
        config.write_text("model = dict(")
        with pytest.raises(
            ValueError, match=rf"{re.escape(str(config))} cannot be read as a config"
        ):
            group_runs(four_runs)

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

    def test_run_without_config_is_compared_with_a_warning(self, tmp_path):
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

    def test_folder_that_is_only_a_seed(self, four_runs, tmp_path):
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

    def test_unknown_reference(self, four_runs, tmp_path):
        with pytest.raises(ValueError, match=r"--reference x: .* \['cls', 'dap'\]"):
            compare(four_runs, tmp_path / "out", reference="x")
