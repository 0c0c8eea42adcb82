"""A classifier of mmpretrain's own config folder with few classes and random weights."""

from pathlib import Path

import mmpretrain
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from dap.pseudo_boxes import Execution, generate_from_config

ZOO = Path(mmpretrain.__file__).parent / ".mim" / "configs"
CLASSES = ("blue", "green", "red")


def zoo_config(root, name="resnet/resnet18_8xb32_in1k.py", side=64):
    """A config of the zoo for three classes, on class folders; all else as it stands there."""
    config = Config.fromfile(ZOO / name)
    config.merge_from_dict(
        {
            "model.head.num_classes": len(CLASSES),
            "model.head.topk": (1,),
            "train_dataloader.dataset.type": "CustomDataset",
            "train_dataloader.dataset.data_root": str(root),
            "train_dataloader.dataset.split": None,
            "pseudo_boxes": {"short_sides": (side,)},
        }
    )
    config.train_dataloader.dataset.pop("split")
    return config


def save_random_weights(config, path, seed=0):
    """Write a checkpoint for a config, as MMEngine does."""
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    meta = {"dataset_meta": {"classes": CLASSES}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return path


def zoo_run(root, out, options=(), **execution):
    """Step 2 of class folders by a classifier of the zoo, as its tool does it."""
    config = zoo_config(root)
    config.merge_from_dict(dict(options))
    checkpoint = out.with_name(f"{out.name}.pth")
    if not checkpoint.exists():
        save_random_weights(config, checkpoint)
    execution = Execution(**{"num_workers": 0, "shard_size": 8, **execution})
    return generate_from_config(config, str(checkpoint), out, execution=execution, device="cpu")
