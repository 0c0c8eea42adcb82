"""Runs of Step 2 with a ResNet-18 of mmpretrain's config folder, and comparisons of their boxes.

As a program it kills itself after a few shards: python runs.py FOLDER OUT
"""

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from dap.pseudo_boxes import (
    CamClassifier,
    Execution,
    PseudoBoxStore,
    build_classifier,
    generate_from_config,
    pipeline,
)
from dap.store.writer import StoreWriter
from dap.testing import make_class_folders

sys.path.append(str(Path(__file__).parents[2]))  # as a program
from tests.support.zoo import save_random_weights, zoo_config

DEVICE = "cuda"
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
IMAGES_PER_CLASS = 40  # of three classes
SMALL_WINDOW, SHARD = 64, 16  # two windows of four shards each
SHARDS_BEFORE_KILL = 5


class ZooRuns(NamedTuple):
    """Where images and checkpoint lie."""

    folder: Path

    @classmethod
    def make(cls, folder):
        runs = cls(folder)
        make_class_folders(runs.images, IMAGES_PER_CLASS)
        save_random_weights(runs.config(), runs.checkpoint)
        return runs

    @property
    def images(self):
        return self.folder / "images"

    @property
    def checkpoint(self):
        return self.folder / "weights.pth"

    def config(self, images=None, sides=(64, 128), autocast=None):
        config = zoo_config(images or self.images)
        config.merge_from_dict({"pseudo_boxes": {"short_sides": sides, "autocast": autocast}})
        return config

    def generate(self, out, device=DEVICE, images=None, sides=(64, 128), autocast=None, **kwargs):
        """Run Step 2; its summary."""
        execution = {"num_workers": 2, "shard_size": SHARD, "keep_going": True, **kwargs}
        config = self.config(images, sides, autocast)
        return generate_from_config(
            config, str(self.checkpoint), out, execution=Execution(**execution), device=device
        )

    def classifier(self, device=DEVICE):
        model, _ = build_classifier(self.config(), str(self.checkpoint))
        return CamClassifier(model.to(device))


def agreement(one, other, pixels=0.5):
    """Share of images that have the same boxes in two stores, up to so many pixels.

    Rounding moves a cell across a threshold now and then, which changes a whole box.
    """
    same = []
    for first, second in zip(records_of(one), records_of(other), strict=True):
        assert first["file_name"] == second["file_name"]
        rows = [np.array(record["boxes"], float).reshape(-1, 6) for record in (first, second)]
        equal = rows[0].shape == rows[1].shape and np.array_equal(rows[0][:, 4:], rows[1][:, 4:])
        same.append(equal and np.abs(rows[0] - rows[1]).max(initial=0) <= pixels)
    return np.mean(same)


def records_of(out):
    return [record for shard in PseudoBoxStore(out).shards for record in shard.records()]


def run_until_killed(folder, out):
    """Kill this process, as the system does, when it is to write one shard more."""
    pipeline.WINDOW_GPU = SMALL_WINDOW
    write, written = StoreWriter.write, []

    def writing(self, *args):
        if len(written) == SHARDS_BEFORE_KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, *args)
        written.append(args)

    StoreWriter.write = writing
    init_default_scope("mmpretrain")
    ZooRuns(Path(folder)).generate(out)


if __name__ == "__main__":
    run_until_killed(*sys.argv[1:])
