"""Runs of Step 2 with the planted classifier, and what they wrote."""

import json
from pathlib import Path

from mmpretrain.datasets import CustomDataset

from dap.pseudo_boxes import Execution, PseudoBoxSettings, generate_pseudo_boxes
from tests.support.planted import planted_classifier

SETTINGS = PseudoBoxSettings(short_sides=(128,), thresholds=(0.3, 0.5), rule="paper")


def generate(root: Path, out: Path, **kwargs):
    kwargs = {"settings": SETTINGS, **kwargs}
    kwargs.setdefault("execution", Execution(kwargs.pop("num_workers", 0)))
    model = kwargs.pop("model", None) or planted_classifier()
    dataset = kwargs.pop("dataset", None) or CustomDataset(data_root=str(root))
    summary = generate_pseudo_boxes(model, dataset, out, **kwargs)
    return summary, json.loads((out / "annotations.json").read_text())


def run(root: Path, out: Path, **execution) -> dict:
    """Step 2 in shards of eight images; all but the folders are settings of its execution."""
    execution = Execution(**{"num_workers": 0, "shard_size": 8, **execution})
    dataset = CustomDataset(data_root=str(root))
    return generate_pseudo_boxes(planted_classifier(), dataset, out, SETTINGS, None, execution)


def spoil(root: Path, *names: str | Path) -> dict[Path, bytes]:
    """Make images empty files; returns what they held, for :func:`mend`."""
    whole = {root / name: (root / name).read_bytes() for name in names}
    for path in whole:
        path.write_bytes(b"")
    return whole


def mend(whole: dict[Path, bytes]) -> None:
    for path, content in whole.items():
        path.write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
