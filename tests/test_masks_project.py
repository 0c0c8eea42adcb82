"""The project on masks: its configs, its steps, its table, and a tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from dap.store.masks import decode_mask
from tests.support.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "masks"
QUICK_START = ROOT / "projects" / "quickstart"


@pytest.fixture(scope="module")
def run():
    return load_script(PROJECT / "run.py")


def config(name, folder=PROJECT):
    return Config.fromfile(folder / "configs" / f"{name}.py")


def test_true_masks_are_those_of_the_painted_objects(tmp_path):
    """Boxes of the COCO file enclose its masks; a ring has a hole."""
    shapes = load_script(QUICK_START / "shapes.py")
    shapes.make_classification_set(tmp_path / "train", 1, 0, tmp_path / "true.json")
    shapes.make_detection_set(tmp_path / "voc", 1, 2, 0)
    ring = None
    for path in (tmp_path / "true.json", tmp_path / "voc" / "test.json"):
        content = json.loads(path.read_text())
        names = {item["id"]: item["name"] for item in content["categories"]}
        assert len(content["annotations"]) > 2
        for item in content["annotations"]:
            segmentation = item["segmentation"]
            mask = decode_mask(segmentation["counts"], segmentation["size"])
            x, y, w, h = item["bbox"]
            assert mask.sum() == mask[y : y + h, x : x + w].sum() == item["area"]
            assert mask[y].any()
            assert mask[:, x + w - 1].any()
            if names[item["category_id"]] == "ring":
                ring = mask[y + h // 2, x + w // 2]
    assert ring is np.False_


def test_starts_differ_in_the_initialisation_alone():
    cls, dap = config("finetune_cls").to_dict(), config("finetune_dap").to_dict()
    del dap["model"]["init_cfg"], dap["model"]["backbone"]["init_cfg"]
    del cls["model"]["backbone"]["init_cfg"]
    assert cls == dap


def test_masks_are_what_the_two_pre_trainings_differ_in():
    own = config("pretrain_masks").to_dict()
    boxes = config("pretrain_detector", QUICK_START).to_dict()
    model = own["model"]
    assert model["roi_head"].pop("mask_head")["num_classes"] == 16
    assert model["roi_head"].pop("mask_roi_extractor")["out_channels"] == 40
    assert model["train_cfg"]["rcnn"].pop("mask_size") == 2 * 10
    assert own["train_dataloader"]["dataset"]["pipeline"][1].pop("with_mask")
    model["type"] = boxes["model"]["type"]
    del own["mask_rcnn"]
    assert own == boxes


def test_steps(run):
    for size in run.SIZES:
        stages = run.MaskChain(0, run.size_of(size)).stages()
        commands = {step.name: step.command for stage in stages for step in stage}
        assert set(commands) == set(run.SECONDS)
        assert run.MASKS in commands["classifier"]
        missing = "model.init_cfg.allow_missing=roi_head.mask_head"
        assert [name for name, words in commands.items() if missing in words] == ["boxes"]
        for name in ("boxes", "masks"):
            (start,) = (w for w in commands[name] if w.startswith("model.init_cfg.checkpoint"))
            assert f"work_dirs/pretrain_{name}/" in start


def test_table(run):
    """Two seeds with two validations: means and deviations by hand."""
    results = []
    for shift in (0, 2):
        seed = {
            name: run.figures(
                [
                    {"iteration": it, **dict.fromkeys(run.METRICS, 10 * rank + shift + it)}
                    for it in (4, 8)
                ]
            )
            for rank, name in enumerate(run.NAMES)
        }
        results.append({**seed, "quality": {"mean IoU of the masks": 0.5 + shift / 100}})
    lines = run.table(results).splitlines()
    head = "box AP at 4 | box AP at 8 | mask AP at 4 | mask AP at 8 | box AP50 | mask AP50"
    assert lines[0] == f"| | {head} |"
    values = [f"{value}.0 ± 1.4" for value in (5, 9, 5, 9, 9, 9)]
    assert lines[2] == f"| CLS | {' | '.join(values)} |"
    assert lines[5].startswith("| DAP, boxes alone, minus CLS | +10.0 ± 0.0 |")
    assert lines[7].startswith("| DAP, boxes with masks, minus DAP, boxes alone | +10.0 ± 0.0 |")
    assert lines[-1] == "Pseudo boxes, in percent: mean IoU of the masks 51.0 ± 1.4."


@pytest.mark.slow
def test_tiny_run(tmp_path):
    command = [sys.executable, PROJECT / "run.py", "--size", "tiny", "--seeds", "0"]
    subprocess.run([*command, "--work-dir", tmp_path], check=True, timeout=1500)
    table = (tmp_path / "tiny" / "table.md").read_text()
    assert table.count("| DAP, boxes with masks") == 3
    page = (tmp_path / "tiny" / "seed0" / "report" / "index.html").read_text()
    assert "thin outlines: masks" in page
