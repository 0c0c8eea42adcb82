"""Work directories to compare."""

import pytest

from tests.support.work_dirs import CLS, DAP, write_run


@pytest.fixture
def no_drawing(monkeypatch):
    """Have comparisons write empty files for pictures: drawing takes most of their time."""
    from dap.comparison import comparison

    def draw(curves, metrics, out, *_):
        out.touch()
        return out

    monkeypatch.setattr(comparison, "draw_curves", draw)


@pytest.fixture
def four_runs(tmp_path):
    """CLS and DAP, two seeds each: at 25, 50 and 100 iterations CLS 12, 22, 42, DAP 32, 47, 52."""
    return [
        write_run(tmp_path / "cls_seed0", {25: 10, 50: 20, 100: 40}, CLS, 0),
        write_run(tmp_path / "cls_seed1", {25: 14, 50: 24, 100: 44}, CLS, 1),
        write_run(tmp_path / "dap_seed0", {25: 30, 50: 45, 100: 51}, DAP, 0),
        write_run(tmp_path / "dap_seed1", {25: 34, 50: 49, 100: 53}, DAP, 1),
    ]
