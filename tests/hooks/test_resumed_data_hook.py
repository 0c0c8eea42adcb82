"""Resumed trainings continue with the batches of an uninterrupted one, and load no earlier ones."""

import os

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

import dap.hooks  # noqa: F401

BATCH, COUNT = 3, 50


@DATASETS.register_module()
class Numbers(Dataset):
    """Numbers, every third of a tall image; each is written to a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __len__(self):
        return COUNT

    def get_data_info(self, index):
        return {"width": 10, "height": 20 if index % 3 == 0 else 5}

    def __getitem__(self, index):
        with open(self.file, "ab") as file:
            os.write(file.fileno(), b"%d\n" % index)
        return index


class Recorder(BaseModel):
    """Keeps the numbers of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def forward(self, inputs, mode="loss"):
        return {"loss": self.weight.sum()}

    def train_step(self, data, optim_wrapper):
        self.batches.append(data)
        return super().train_step({"inputs": data}, optim_wrapper)


@pytest.fixture
def train(tmp_path):
    """Train in a folder up to an iteration; the batches, and how many images were loaded."""

    def run(folder, max_iters, workers, batch_sampler=None, resume=False, hooks=True, **sampler):
        file = tmp_path / "loaded.txt"
        file.write_text("")
        loader = {
            "dataset": {"type": "Numbers", "file": str(file)},
            "sampler": {"type": "InfiniteSampler", "seed": 5, **sampler},
            "batch_size": BATCH,
            "num_workers": workers,
            "persistent_workers": workers > 0,
        }
        if batch_sampler:
            loader["batch_sampler"] = {"type": batch_sampler}
        runner = Runner(
            Recorder(),
            str(tmp_path / folder),
            train_dataloader=loader,
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": max_iters},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False,
                                          "interval": max_iters}},
            custom_hooks=[{"type": "dap.ResumedDataHook"}] if hooks else [],
            resume=resume,
            default_scope="mmdet",
            experiment_name=f"{folder}{max_iters}",
        )  # fmt: skip
        runner.train()
        return runner.model.batches, len(file.read_text().split())

    return run


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_sampler", [None, "AspectRatioBatchSampler"])
def test_batches_are_those_of_an_uninterrupted_training(train, workers, batch_sampler):
    whole, _ = train("whole", 40, workers, batch_sampler)
    begun, _ = train("killed", 30, workers, batch_sampler)
    rest, loaded = train("killed", 40, workers, batch_sampler, resume=True)

    assert begun + rest == whole
    assert len(rest) == 10
    ahead = 2 * workers * BATCH  # what the workers load before the training asks for it
    assert 10 * BATCH <= loaded <= 10 * BATCH + 2 * ahead


def test_without_the_hook_all_earlier_images_are_loaded(train):
    train("killed", 30, 0)
    rest, loaded = train("killed", 40, 0, resume=True, hooks=False)
    assert (len(rest), loaded) == (10, 40 * BATCH)


def test_few_iterations_are_those_that_the_workers_have_begun(train):
    whole, _ = train("whole", 6, 2)
    begun, _ = train("killed", 2, 2)
    rest, _ = train("killed", 6, 2, resume=True)
    assert begun + rest == whole


def test_other_samplers_are_left_to_mmengine(train):
    train("killed", 10, 0, type="DefaultSampler")
    rest, loaded = train("killed", 14, 0, resume=True, type="DefaultSampler")
    assert (len(rest), loaded) == (4, 14 * BATCH)
