"""The head start that tools/compare.py states, worked out by hand."""

import pytest

from dap.comparison import compare
from dap.comparison.head_start import reaching
from tests.support.work_dirs import CLS, DAP, warnings, write_run

pytestmark = pytest.mark.usefixtures("no_drawing")


class TestHeadStart:
    def test_sentence_on_the_head_start(self, four_runs, tmp_path):
        """CLS rises from 22 at iteration 50 to 42 at 100, so it reaches 32 at 75 = 3 x 25."""
        report = compare(four_runs, tmp_path / "out")
        assert (
            "- At iteration 25 dap has AP50 32.0 against cls 12.0: +20.0 (mean of 2 seeds). "
            "cls reaches 32.0 at iteration 75 (interpolated), 3.0 times as many. "
            "At iteration 100, the last of both: +10.0."
        ) in report.splitlines()

    def test_at_other_iterations(self, four_runs, tmp_path):
        report = compare(four_runs, tmp_path / "out", at=[50, 100])
        assert (
            "- At iteration 50 dap has AP50 47.0 against cls 22.0: +25.0 (mean of 2 seeds). "
            "cls does not reach 47.0 by iteration 100, its last. "
            "At iteration 100 dap has AP50 52.0 against cls 42.0: +10.0 (mean of 2 seeds)."
        ) in report.splitlines()
        with pytest.raises(ValueError, match=r"--at 60: expected an iteration .*\[25, 50, 100\]"):
            compare(four_runs, tmp_path / "out", at=[60])

    def test_reached_before_the_next_validation(self, tmp_path):
        """CLS rises from 22 at iteration 50 to 42 at 100, so it reaches 32 at 75."""
        cls = write_run(tmp_path / "cls", {25: 40, 50: 22, 100: 42})
        dap = write_run(tmp_path / "dap", {25: 42, 50: 32, 100: 50}, DAP)
        report = compare([cls, dap], tmp_path / "out", at=[50])
        assert "cls reaches 32.0 at iteration 75 (interpolated), 1.5 times as many." in report

    def test_validation_before_the_first_iteration(self, tmp_path):
        """From iteration 0 on, the report states no ratio."""
        cls, dap = (
            write_run(
                tmp_path / name, {0: {"coco/bbox_mAP_50": first}, 5: {"coco/bbox_mAP_50": 0.5}}
            )
            for name, first in (("cls", 0.1), ("dap", 0.3))
        )
        said = compare([f"CLS={cls}", f"DAP={dap}"], tmp_path / "out")
        assert "CLS reaches 30.0 at iteration 2 (interpolated)." in said

    def test_group_behind_the_reference(self, four_runs, tmp_path):
        report = compare([four_runs[2], four_runs[0]], tmp_path / "out")
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
        assert "Head start" not in report  # there is one common iteration, and the table has it
        report = compare([*cls, dap], tmp_path / "out", at=[50])
        assert (
            "At iteration 50 dap has AP50 45.0 against cls 21.0: +24.0 (means of 1 and 2" in report
        )
        assert any("2 iterations" in line and "25, 30" in line for line in warnings(report))
