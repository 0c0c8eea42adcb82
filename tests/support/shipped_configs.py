"""The configs of ``configs/`` by what they are for, and their trainings."""

import re
from pathlib import Path

from dap.experiments import EXPERIMENTS, ConfigTree
from dap.experiments.schedule import k_shot_options

ROOT = Path(__file__).resolve().parents[2]
TREE = ConfigTree()
RUNNABLE = sorted(path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts)
# Detectors that are not the paper's are trained by MMDetection's own recipes.
OTHERS = ("dino", "mask-rcnn", "rtmdet")
PRETRAIN = [
    path.stem
    for path in RUNNABLE
    if path.parent.name == "pretrain" and not path.stem.startswith(OTHERS)
]
ALL_FINETUNE = [
    path.stem
    for path in RUNNABLE
    if "finetune" in path.parts and not path.stem.startswith("predict")
]
# Trainings of the k-shot configs on each number of images per class: name of the run → run.
K_SHOT = {
    cell.run.name: cell.run
    for experiment in EXPERIMENTS.values()
    for row in experiment.rows
    for cell in row.cells
    if cell.run.shots
}
FINETUNE = [
    name for name in ALL_FINETUNE if not name.startswith(OTHERS) and not name.endswith("-kshot")
]
FINETUNE += K_SHOT


def value_for(table, name):
    """The one entry of a table whose pattern the name begins with."""
    found = [value for pattern, value in table.items() if re.match(pattern, name)]
    assert len(found) == 1, f"{name}: {len(found)} entries of the table fit"
    return found[0]


def load(name):
    """The config of a training with the options that the plan passes."""
    if name not in K_SHOT:
        return TREE.load(name)
    run = K_SHOT[name]
    return TREE.load(run.config, k_shot_options(TREE.load(run.config), run.shots))


def names(paths):
    return [path.stem for path in paths]
