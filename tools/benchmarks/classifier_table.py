"""Write the table of classifiers and their map methods in docs/classifiers.md.

    python tools/benchmarks/classifier_table.py
    python tools/benchmarks/classifier_table.py timm:resnet18 hornet/hornet-tiny_8xb128_in1k.py

The table has one classifier per family of mmpretrain's config folder, the one with the fewest
parameters, and some of timm and torchvision, all with random weights. With names, only their rows
are updated. Needs timm.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmpretrain
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn

import dap  # noqa: F401  (checks versions)
from dap.classifiers.libraries import classifier_config
from dap.pseudo_boxes.classifier import CamClassifier
from dap.pseudo_boxes.from_config import drop_init

PAGE = Path(__file__).parents[2] / "docs" / "classifiers.md"
ZOO = Path(mmpretrain.__file__).parent / ".mim" / "configs"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = "| classifier | maps | feature map | images |\n| --- | --- | --- | --- |\n"

SMALLEST = {
    "barlowtwins": "benchmarks/resnet50_8xb32-linear-coslr-100e_in1k",
    "beit": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "beitv2": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "byol": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "cae": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "clip": "vit-base-p16_pt-64xb64_in1k-384px",
    "conformer": "conformer-tiny-p16_8xb128_in1k",
    "convmixer": "convmixer-768-32_10xb64_in1k",
    "convnext": "convnext-tiny_32xb128_in1k-384px",
    "convnext_v2": "convnext-v2-atto_32xb32_in1k",
    "cspnet": "cspresnext50_8xb32_in1k",
    "csra": "resnet101-csra_1xb16_voc07-448px",
    "davit": "davit-tiny_4xb256_in1k",
    "deit": "deit-tiny_4xb256_in1k",
    "deit3": "deit3-small-p16_64xb64_in1k",
    "densecl": "benchmarks/resnet50_8xb32-linear-steplr-100e_in1k",
    "densenet": "densenet121_4xb256_in1k",
    "edgenext": "edgenext-xxsmall_8xb256_in1k",
    "efficientformer": "efficientformer-l1_8xb128_in1k",
    "efficientnet": "efficientnet-b0_8xb32-01norm_in1k",
    "efficientnet_v2": "efficientnetv2-b0_8xb32_in1k",
    "eva": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "eva02": "eva02-tiny-p14_in1k",
    "hivit": "hivit-tiny-p16_16xb64_in1k",
    "hornet": "hornet-tiny_8xb128_in1k",
    "hrnet": "hrnet-w18_4xb32_in1k",
    "inception_v3": "inception-v3_8xb32_in1k",
    "lenet": "lenet5_mnist",
    "levit": "levit-128s_8xb256_in1k",
    "mae": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "maskfeat": "benchmarks/vit-base-p16_8xb256-coslr-100e_in1k",
    "mff": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "milan": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "mixmim": "benchmarks/mixmim-base_8xb128-coslr-100e_in1k",
    "mlp_mixer": "mlp-mixer-base-p16_64xb64_in1k",
    "mobilenet_v2": "mobilenet-v2_8xb32_in1k",
    "mobilenet_v3": "mobilenet-v3-small-050_8xb128_in1k",
    "mobileone": "mobileone-s1_8xb32_in1k",
    "mobilevit": "mobilevit-xxsmall_8xb128_in1k",
    "mocov2": "benchmarks/resnet50_8xb32-linear-steplr-100e_in1k",
    "mocov3": "benchmarks/vit-small-p16_8xb128-linear-coslr-90e_in1k",
    "mvit": "mvitv2-tiny_8xb256_in1k",
    "poolformer": "poolformer-s12_32xb128_in1k",
    "regnet": "regnetx-400mf_8xb128_in1k",
    "replknet": "replknet-31L_32xb64_in1k-384px",
    "repmlp": "repmlp-base_8xb64_in1k",
    "repvgg": "repvgg-A0_8xb32_in1k",
    "res2net": "res2net50-w14-s8_8xb32_in1k",
    "resnest": "resnest50_32xb64_in1k",
    "resnet": "resnet18_8xb16_cifar10",
    "resnext": "resnext50-32x4d_8xb32_in1k",
    "revvit": "revvit-small_8xb256_in1k",
    "riformer": "riformer-s12_8xb128_in1k-384px",
    "seresnet": "seresnext50-32x4d_8xb32_in1k",
    "shufflenet_v1": "shufflenet-v1-1x_16xb64_in1k",
    "shufflenet_v2": "shufflenet-v2-1x_16xb64_in1k",
    "simclr": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "simmim": "benchmarks/swin-base-w6_8xb256-coslr-100e_in1k-192px",
    "simsiam": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "spark": "benchmarks/resnet50_8xb256-coslr-300e_in1k",
    "swav": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "swin_transformer": "swin-tiny_16xb64_in1k",
    "swin_transformer_v2": "swinv2-tiny-w16_16xb64_in1k-256px",
    "t2t_vit": "t2t-vit-t-14_8xb64_in1k",
    "tinyvit": "tinyvit-5m-distill_8xb256_in1k",
    "tnt": "tnt-s-p16_16xb64_in1k",
    "twins": "twins-svt-small_8xb128_in1k",
    "van": "van-tiny_8xb128_in1k",
    "vgg": "vgg11_8xb32_in1k",
    "vig": "vig-tiny_8xb128_in1k",
    "vision_transformer": "vit-base-p16_32xb128-mae_in1k",
    "wrn": "wide-resnet50_8xb32_in1k",
    "xcit": "xcit-nano-12-p8_8xb128_in1k-384px",
}
"""The classifier with the fewest parameters per family of mmpretrain's config folder, except for
those in "deploy" folders."""
TIMM = (
    "beit_base_patch16_224", "cait_xxs24_224", "coatnet_nano_rw_224", "convnext_atto",
    "convnextv2_atto", "deit_tiny_patch16_224", "densenet121", "edgenext_xx_small",
    "efficientnet_b0", "fastvit_t8", "ghostnet_050", "inception_v3", "levit_128s",
    "maxvit_tiny_rw_224", "mixer_s16_224", "mobilenetv3_small_050", "mobilevit_xxs",
    "pit_ti_224", "poolformer_s12", "regnetx_002", "repvit_m0_9", "resnet18",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "tf_efficientnet_lite0", "vgg11",
    "vit_base_patch16_siglip_gap_224", "vit_small_patch14_reg4_dinov2",
    "vit_tiny_patch16_224", "xcit_nano_12_p16_224",
)  # fmt: skip
TORCHVISION = (
    "convnext_tiny", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "resnet18",
    "squeezenet1_1", "swin_t", "vgg11", "vit_b_16",
)  # fmt: skip


def classifiers() -> list[str]:
    """List the names of all classifiers of the table."""
    return [
        *(f"{family}/{name}.py" for family, name in SMALLEST.items()),
        *(f"timm:{name}" for name in TIMM),
        *(f"torchvision:{name}" for name in TORCHVISION),
    ]


def row(name: str) -> str:
    """Build a classifier and return its row."""
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    try:
        classifier = CamClassifier(_build(name))
    except ValueError as error:
        reason = str(error).partition(": ")[2].partition(". Expected")[0]
        return _cells(name, "refused", reason, "")
    size = classifier.input_size
    images = "any size" if size is None else f"{size[1]} x {size[0]}"
    if classifier.map_method == "exact":
        return _cells(name, "exact", classifier.feature_map, images)
    place = f"{classifier.feature_map}; {classifier.reason}"
    by_attention = classifier.map_description.startswith("AG-CAM")
    return _cells(name, "by gradient, AG-CAM" if by_attention else "by gradient", place, images)


def rows_on_page() -> dict[str, str]:
    """Read the rows of the page, by classifier."""
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = text.removeprefix(HEAD).splitlines(keepends=True)
    return {row.split(" | ")[0].removeprefix("| ").strip("`"): row for row in rows}


def _build(name: str) -> nn.Module:
    if ":" in name:
        config = classifier_config(name, None)
    else:
        config = Config.fromfile(ZOO / name)
        config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))
    drop_init(config.model)
    model = MODELS.build(config.model)
    _fill_zeros(model)
    return model


def _fill_zeros(model: nn.Module) -> None:
    """Replace weights that are initialised with zeros, such as those of some heads."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1 and not value.any():
                value.normal_(std=0.02)


def _cells(*cells: Any) -> str:
    name, *others = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
    return f"| `{name}` | {' | '.join(others)} |\n"


def _updated_rows(names: list[str]) -> Iterator[str]:
    """Yield all rows: compute and print those of some names, and keep those of the page."""
    old_rows = rows_on_page()
    for name in classifiers():
        line = row(name) if name in names or name not in old_rows else old_rows[name]
        if line != old_rows.get(name):
            sys.stdout.write(line)
            sys.stdout.flush()
        yield line


def main() -> None:
    """Replace the table of the page, between its markers."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    text_before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text_after = rest.partition(END)[2]
    content = BEGIN + HEAD + "".join(_updated_rows(sys.argv[1:] or classifiers())) + END
    PAGE.write_text(text_before + content + text_after, encoding="utf-8")


if __name__ == "__main__":
    main()
