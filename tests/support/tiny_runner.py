"""Train a one-layer model with much of what MMEngine saves: run as a script, or imported."""

import pickle
import sys

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Numbers(torch.utils.data.Dataset):
    def __init__(self):
        self.metainfo = {"classes": ("even", "odd"), "areas": np.array([1, 2])}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"inputs": torch.full((2,), float(index)), "targets": torch.tensor(float(index))}


class Line(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, targets, mode):
        error = self.layer(torch.stack(inputs)).squeeze(1) - torch.stack(targets)
        return {"loss": error.square().mean()} if mode == "loss" else [error]


class Score(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {"double": np.float64(0.5), "single": np.float32(0.5), "count": np.int64(3)}


def make_runner(work_dir, epochs, **settings):
    loader = {"dataset": Numbers(), "batch_size": 2, "num_workers": 0}
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader={**loader, "sampler": {"type": "DefaultSampler", "shuffle": True}},
        val_dataloader={**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_evaluator=[Score(prefix="score")],
        val_cfg={},
        train_cfg={"by_epoch": True, "max_epochs": epochs, "val_interval": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
        param_scheduler=[
            {"type": "MultiStepLR", "milestones": [1, 2]},
            {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 20, "by_epoch": False},
            {"type": "CosineAnnealingMomentum", "T_max": 4},
        ],
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "save_best": "score/double"}
            | {"rule": "greater"}
        },
        custom_hooks=[{"type": "EMAHook"}],
        log_level="WARNING",
        **settings,
    )


if __name__ == "__main__":
    make_runner(sys.argv[1], epochs=2).train()
    try:
        torch.load(f"{sys.argv[1]}/epoch_2.pth")
    except pickle.UnpicklingError:
        print("refused without dap")
