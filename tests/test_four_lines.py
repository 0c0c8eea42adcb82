"""From an empty folder to a compared pair of detectors, by the four lines of the README."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import dap_cli
from dap.testing import COLOURS_BGR, draw_image, make_class_folders, random_box, write_image
from tests.support.markdown_files import ROOT, blocks, commands

# What makes RTMDet-tiny train in a second per ten iterations: small images, no processes beside it.
SMALL_PIPELINE = [
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "train_dataloader.dataset.pipeline.2.img_scale=(64,64)",
    "train_dataloader.dataset.pipeline.3.scale=(128,128)",
    "train_dataloader.dataset.pipeline.4.crop_size=(64,64)",
    "train_dataloader.dataset.pipeline.7.size=(64,64)",
    "train_dataloader.dataset.pipeline.8.img_scale=(64,64)",
    "val_dataloader.dataset.pipeline.1.scale=(64,64)",
    "val_dataloader.dataset.pipeline.2.size=(64,64)",
    "model.backbone.init_cfg=None",  # nothing is downloaded
    "model.test_cfg.score_thr=0.0",  # ten iterations detect something, too
    "randomness.seed=0",
]


def four_lines():
    """The commands of the README's block for one's own images, as words."""
    (found,) = (
        block for block in blocks(ROOT / "README.md", "bash") if "dap new-config" in block.text
    )
    return [shlex.split(line, comments=True) for line in commands(found.text)]


def make_yolo(root, images_per_class=5):
    """A YOLO set of one object per image, and as many images to validate on."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(3 * images_per_class):
            label, colour = number % 3, list(COLOURS_BGR)[number % 3]
            x1, y1, x2, y2 = box = random_box(rng, (100, 100))
            image = draw_image((100, 100), [box], [colour])
            write_image(root / f"images/{split}/{number}.jpg", image)
            shares = [(x1 + x2) / 200, (y1 + y2) / 200, (x2 - x1) / 100, (y2 - y1) / 100]
            text = " ".join(map(str, (label, *shares))) + "\n"
            labels = root / f"labels/{split}/{number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text(text)
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: [bolt, nut, screw]\n"
    )


def test_readme_has_four_lines_each_of_which_is_said_by_the_one_before(tmp_path, monkeypatch):
    boxes, new_config, pretrain, finetune = four_lines()
    assert [line[:2] for line in (boxes, new_config, pretrain, finetune)] == [
        ["dap", verb] for verb in ("boxes", "new-config", "pretrain", "finetune")
    ]

    store = boxes[boxes.index("--out") + 1]
    said = dap_cli.next_step("boxes", boxes[2:])
    assert said.splitlines()[1] == f"then: dap new-config DETECTOR {store} --finetune DATA"
    assert new_config[3:5] == [store, "--finetune"]
    monkeypatch.chdir(tmp_path)
    for config in (*pretrain[2:], *finetune[2:]):  # as dap new-config writes them
        Path(config).parent.mkdir(exist_ok=True)
        Path(config).touch()
    assert dap_cli.next_step("pretrain", pretrain[2:]) == shlex.join(finetune)


@pytest.mark.slow
def test_four_lines_end_in_a_compared_pair(tmp_path):
    """Only sizes and numbers of iterations are given beside what the README says."""
    make_class_folders(tmp_path / "my_images", 8)
    classifier = timm.create_model("test_resnet", num_classes=3)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    make_yolo(tmp_path / "my_detection_set")
    boxes, new_config, pretrain, finetune = four_lines()
    boxes[2] = "timm:test_resnet"
    new_config += ["--iterations", "10", "--finetune-iterations", "10", "--batch-size", "2"]
    for line in (pretrain, finetune):
        line += ["--cfg-options", *SMALL_PIPELINE]

    outputs = [run(line, tmp_path) for line in (boxes, new_config, pretrain, finetune)]

    assert "then: dap new-config DETECTOR boxes --finetune DATA" in outputs[0]
    assert f"next: {shlex.join(pretrain[:3])}\n" in outputs[1]
    assert f"next: {shlex.join(finetune[:4])}\n" in outputs[2]
    report = (tmp_path / "comparison" / "report.md").read_text()
    rows = re.findall(r"^\| finetune_rtmdet_tiny_(?:cls|dap) .*", report, re.MULTILINE)
    assert len(rows) == 2
    assert all(row in outputs[3] for row in rows)
    assert "At iteration 10, the last of both" in report
    logs = list(tmp_path.glob("work_dirs/finetune_rtmdet_tiny_dap/*/*.log"))
    assert "dap.PretrainedDetector" in logs[0].read_text()


def run(line, folder):
    """Run a command as a user does; give what it prints."""
    program = [sys.executable, "-m", "dap_cli", *line[1:]]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout
