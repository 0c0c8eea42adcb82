"""Tables and curves of k-shot runs, and the pictures of tools/compare.py."""

import cv2
import numpy as np
import pytest

from dap.comparison import compare
from dap.comparison.runs import group_runs
from tests.support.work_dirs import CLS, DAP, changed, rows, shot, warnings, write_run


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

    def test_shots_without_a_twin_are_reported(self, runs, tmp_path):
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
    def test_curves(self, four_runs, tmp_path):
        named = [f"$CLS_1$={four_runs[0]},{four_runs[1]}", f"DAP={four_runs[2]},{four_runs[3]}"]
        compare(named, tmp_path / "out")
        svg = (tmp_path / "out/curves.svg").read_text()
        for text in ("CLS_1", "DAP", "iteration", "AP50"):
            assert text in svg
        png = cv2.imread(str(tmp_path / "out/curves.png"))
        assert len(np.unique(png.reshape(-1, 3), axis=0)) > 50

    def test_band_is_drawn_where_there_are_seeds(self, four_runs, tmp_path):
        compare(four_runs, tmp_path / "two")
        compare([four_runs[0], four_runs[2]], tmp_path / "one")
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
