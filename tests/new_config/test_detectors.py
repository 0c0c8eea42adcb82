"""Detectors through Steps 3 and 4 by tools/new_config.py: what is said to move, moves."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.tiny_recipes import TINY, make_data, write_tiny_config

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))
import detector_page
import detectors

BASES = {base.split("/")[0].removeprefix("mmdet::"): base for base in TINY}


@pytest.mark.parametrize(
    ("family", "new"),
    [
        ("faster_rcnn", {"roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"}),
        pytest.param(
            "mask_rcnn",
            {
                "roi_head.bbox_head.fc_cls",
                "roi_head.bbox_head.fc_reg",
                "roi_head.mask_head",
            },
            marks=pytest.mark.slow,
        ),
        pytest.param("yolox", {"bbox_head.multi_level_conv_cls.N"}, marks=pytest.mark.slow),
        ("deformable_detr", {"bbox_head.cls_branches.N"}),
    ],
)
def test_tiny_detectors(tmp_path, monkeypatch, data, family, new):
    detectors.skip_slow_parts(monkeypatch.setattr)
    config = write_tiny_config(tmp_path, BASES[family])

    result = detectors.prove_config(str(config), *data, tmp_path, 64, {})

    assert set(detector_page.new_layers(result)) == new
    assert {"backbone", "neck"} < result["parts"].keys()
    assert result["unexpected"] == []


@pytest.mark.parametrize(
    ("family", "new"),
    [
        (
            "mask_rcnn",
            {
                "roi_head.bbox_head.fc_cls",
                "roi_head.bbox_head.fc_reg",
                "roi_head.mask_head.conv_logits",
            },
        ),
        pytest.param("rtmdet", {"bbox_head.rtm_cls.N"}, marks=pytest.mark.slow),
    ],
)
def test_mask_heads_move_where_the_boxes_have_masks(tmp_path, monkeypatch, family, new):
    """All but the layers of the categories; the loss of the masks is part of the training."""
    detectors.skip_slow_parts(monkeypatch.setattr)
    config = write_tiny_config(tmp_path, BASES[family])
    data = make_data(tmp_path / "data", masks=True)

    result = detectors.prove_config(str(config), *data, tmp_path, 64, {})

    assert set(detector_page.new_layers(result)) == new
    assert result["missing"] == result["unexpected"] == []
    (log,) = (tmp_path / "work_dirs").glob("pretrain*/*/vis_data/scalars.json")
    assert json.loads(log.read_text().splitlines()[0])["loss_mask"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors.CASES)
def test_full_detectors(name):
    detectors.import_all()

    result = detectors.in_process(name)

    assert "error" not in result, result["trace"]


def test_page_has_a_row_for_each_detector():
    page = Path(__file__).parents[2] / "docs" / "detectors.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]

    names = [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]]
    assert names == list(detectors.CASES)
    assert not [row for row in rows if "failed" in row]
