"""tools/evaluate_boxes.py as a user runs it."""

import json
import os

import pytest
import torch
from mmengine.registry import init_default_scope

from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes import PseudoBoxSettings, generate_pseudo_boxes
from dap.testing import draw_image, write_image


@pytest.fixture
def planted_run(tmp_path):
    """Images of rectangles on grey, their ground truth, and a run of Step 2 on them."""
    from mmpretrain.datasets import CustomDataset

    from tests.support.planted import config_text, planted_classifier, planted_state

    init_default_scope("mmpretrain")
    lines = []
    for number, colour in enumerate(["blue", "green", "red", "red"]):
        x = 32 * number
        write_image(
            tmp_path / "images" / colour / f"{number}.png",
            draw_image((128, 192), [(x, 32, x + 64, 96)], [colour]),
        )
        lines.append(f"{number},{colour} {x} 32 {x + 64} 96")
    (tmp_path / "truth.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    (tmp_path / "config.py").write_text(config_text())
    torch.save({"state_dict": planted_state(), "meta": {}}, tmp_path / "planted.pth")
    generate_pseudo_boxes(
        planted_classifier(),
        CustomDataset(data_root=str(tmp_path / "images")),
        tmp_path / "boxes",
        PseudoBoxSettings((128,), True, (0.3, 0.5), rule="paper"),
        "planted.pth",
    )
    return tmp_path


class TestTool:
    def test_as_a_user_does(self, store, truth, tmp_path, run_here):
        out = tmp_path / "out" / "quality.json"
        done = run_here("evaluate_boxes", store.folder, truth, "--json", out)
        assert done.returncode == 0, done.stderr
        said = done.stdout
        assert "5 images with 5 objects and 4 boxes evaluated; of 7 images" in said
        assert "CorLoc, mean over classes          50.0" in said
        assert "worst classes     0.0  n11 crane: missed images: 2, found: 0" in said
        assert "ground truth that are not in the store: 1, with 1 of the objects" in said
        expected = evaluate_boxes(store, read_ground_truth(truth))
        assert json.loads(out.read_text()) == expected
        assert os.listdir(out.parent) == ["quality.json"]

    def test_with_maps(self, planted_run, run_here):
        """Boxes and maps find every rectangle."""
        out = planted_run / "quality.json"
        done = run_here(
            *("evaluate_boxes", planted_run / "boxes", planted_run / "truth.csv"),
            *("--worst", "2", "--json", out),
            *("--maps", planted_run / "config.py", planted_run / "planted.pth", "--device", "cpu"),
        )
        assert done.returncode == 0, done.stderr
        table = done.stdout
        assert "4 images with 4 objects and 4 boxes evaluated" in table
        assert "GT-known localisation, IoU .5     100.0" in table
        assert "MaxBoxAccV2 of 4 maps             100.0" in table
        assert "worst classes   100.0  blue: missed images: 0, found: 1" in table
        assert "note: NMS at IoU 0.8 has merged the boxes" in table
        assert "red" not in table
        found = json.loads(out.read_text())
        assert found["per_threshold"]["0.3"]["largest_box"]["0.7"] == 1
        assert found["score_maps"]["max_box_acc_v2_by_iou"]["0.7"] == 1
        assert [own["name"] for own in found["per_class"]] == ["blue", "green", "red"]

    def test_errors(self, store, truth, tmp_path, run_here):
        def fails(*arguments):
            done = run_here("evaluate_boxes", *arguments)
            assert done.returncode == 1
            assert done.stdout == ""
            return done.stderr

        assert "holds no pseudo boxes" in fails(tmp_path / "nowhere", truth)
        assert "nowhere: cannot be read" in fails(store.folder, tmp_path / "nowhere")
        assert "is a folder" in fails(store.folder, truth, "--json", tmp_path)
