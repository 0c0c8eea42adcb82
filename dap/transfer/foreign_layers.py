"""Convert the layers of torchvision's and maskrcnn-benchmark's Faster R-CNN to mmdet's."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MMDET_EPS = 1e-5  # of mmdet's BatchNorm
_RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors, as mmdet orders them
_SUFFIX = r"\.(weight|bias)"
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(?:stem\.)?(conv1|bn1)\.(.+)", r"backbone.\1.\2"),
    (r"backbone\.body\.(layer[1-4]\..+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?" + _SUFFIX, r"neck.lateral_convs.\1.conv.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?" + _SUFFIX, r"neck.fpn_convs.\1.conv.\2"),
    *(
        (rf"backbone\.fpn\.fpn_{old}{i + 1}" + _SUFFIX, rf"neck.{new}_convs.{i}.conv.\1")
        for old, new in (("inner", "lateral"), ("layer", "fpn"))
        for i in range(4)
    ),
    (r"rpn\.head\.conv(?:\.0\.0)?" + _SUFFIX, r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits" + _SUFFIX, r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred" + _SUFFIX, r"rpn_head.rpn_reg.\1"),
    *(
        (
            rf"roi_heads\.box(?:_{module}|\.{benchmark_module})\.{old}" + _SUFFIX,
            rf"roi_head.bbox_head.{new}.\1",
        )
        for module, benchmark_module, old, new in (
            ("head", "feature_extractor", "fc6", "shared_fcs.0"),
            ("head", "feature_extractor", "fc7", "shared_fcs.1"),
            ("predictor", "predictor", "cls_score", "fc_cls"),
            ("predictor", "predictor", "bbox_pred", "fc_reg"),
        )
    ),
)
_ANCHORS = re.compile(r"rpn\.anchor_generator\.cell_anchors\.\d+$")
# The first layer of torchvision's and of maskrcnn-benchmark's detectors.
_FIRST_LAYERS = ("backbone.body.conv1.weight", "backbone.body.stem.conv1.weight")


def is_of_benchmark(weights: Mapping[str, Tensor], source: str) -> bool:
    """Whether weights are those of maskrcnn-benchmark, not of torchvision.

    Args:
        weights: Tensors by name.
        source: Their file, for errors, as in all functions of this module.

    Raises:
        ValueError: If they are neither.
    """
    present = [name for name in _FIRST_LAYERS if name in weights]
    if len(present) != 1:
        raise ValueError(
            f"{source} is no Faster R-CNN of torchvision or maskrcnn-benchmark: expected "
            f"{' or '.join(_FIRST_LAYERS)}, found {', '.join(list(weights)[:3])} … mmdet's own "
            "detectors need no conversion"
        )
    return present[0] == _FIRST_LAYERS[1]


def rename(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Copy tensors under mmdet's names, without the anchors.

    Raises:
        ValueError: If a tensor has no counterpart in mmdet's Faster R-CNN.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in weights.items():
        matches = [(m, new) for old, new in _RULES if (m := re.fullmatch(old, name))]
        if matches:
            match, new = matches[0]
            renamed[match.expand(new)] = value.clone()
        elif not _ANCHORS.match(name):
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{source}: {len(unknown)} tensors have no place in mmdet's Faster R-CNN with FPN and "
            f"two shared layers, such as {', '.join(unknown[:3])}. Convert a detector of that "
            "architecture, without masks or keypoints"
        )
    return renamed


def anchor_order(
    weights: Mapping[str, Tensor], ratios: Sequence[float] | None, source: str
) -> list[int]:
    """Find the permutation that sorts the checkpoint's anchors by ratio, as mmdet sorts them.

    Args:
        weights: Tensors by their original names, with or without anchors of shape (A, 4).
        ratios: Height / width per anchor in the order of the channels. Defaults to those of the
            anchors in the checkpoint, else to .5, 1, 2.
        source: The file.

    Returns:
        Indices of the anchors in the checkpoint, in mmdet's order.

    Raises:
        ValueError: If these are not three anchors of the ratios .5, 1 and 2.
    """
    anchors = next((weights[name] for name in sorted(weights) if _ANCHORS.match(name)), None)
    if ratios is None and anchors is not None:
        sides = (anchors[:, 2:] - anchors[:, :2]).double() + 1  # both corners are inside
        ratios = (sides[:, 1] / sides[:, 0]).tolist()
    ratios = list(_RATIOS if ratios is None else ratios)
    order = sorted(range(len(ratios)), key=ratios.__getitem__)
    pairs = zip(sorted(ratios), _RATIOS, strict=False)
    if len(ratios) != len(_RATIOS) or any(abs(math.log2(a / b)) > 0.3 for a, b in pairs):
        raise ValueError(
            f"{source}: anchors have the ratios {[round(ratio, 2) for ratio in ratios]}; expected "
            f"{list(_RATIOS)} in any order, one size per level"
        )
    return order


def reorder_anchors(weights: dict[str, Tensor], order: Sequence[int], source: str) -> None:
    """Sort the RPN's channels into mmdet's order of anchors, in place.

    Raises:
        ValueError: If the number of channels does not fit.
    """
    for part, rows in (("rpn_cls", 1), ("rpn_reg", 4)):
        for suffix in ("weight", "bias"):
            name = f"rpn_head.{part}.{suffix}"
            value = get(weights, name, source)
            if len(value) != rows * len(order):
                raise ValueError(
                    f"{source}: {part} has {len(value)} channels; expected {rows * len(order)}, "
                    f"{rows} for each of {len(order)} anchors"
                )
            per_anchor = value.unflatten(0, (len(order), rows))
            weights[name] = per_anchor[list(order)].flatten(0, 1).contiguous()


def move_background(weights: dict[str, Tensor], first: bool, source: str) -> tuple[int, bool]:
    """Move the background to the end of the class scores and drop its regressions, in place.

    Eight regressions with three class scores are ambiguous: they are read as those of two classes
    if the background is last, as in Detectron2, and otherwise as those of one class-agnostic
    regressor and the background.

    Returns:
        Number of classes, and whether the regressor is class-agnostic.

    Raises:
        ValueError: If the number of regressions does not fit the number of class scores.
    """
    head = "roi_head.bbox_head"
    rows = len(get(weights, f"{head}.fc_cls.bias", source))
    regressions = len(get(weights, f"{head}.fc_reg.bias", source))
    classes, agnostic, drop = rows - 1, False, False
    if regressions == 4 * rows:
        drop = True
    elif regressions == 4 * classes and (regressions != 8 or not first):
        agnostic = False
    elif regressions in (4, 8):
        agnostic, drop = True, regressions == 8
    else:
        raise ValueError(
            f"{source}: {regressions} regressions for {rows} class scores; expected 4 for each "
            "class, with or without the background, or 4 or 8 that serve all"
        )
    for suffix in ("weight", "bias"):
        scores, boxes = (
            get(weights, f"{head}.{part}.{suffix}", source) for part in ("fc_cls", "fc_reg")
        )
        if first:
            weights[f"{head}.fc_cls.{suffix}"] = torch.cat([scores[1:], scores[:1]])
        if drop:
            weights[f"{head}.fc_reg.{suffix}"] = (boxes[4:] if first else boxes[:-4]).clone()
    return classes, agnostic


def shift_variances(weights: dict[str, Tensor], eps: float) -> None:
    """Adjust variances for mmdet's epsilon of 1e-5, so that BatchNorm acts as with ``eps``."""
    for name in [name for name in weights if name.endswith(".running_var")]:
        weights[name] = (weights[name].double() + (eps - MMDET_EPS)).float()
        count = name.replace("running_var", "num_batches_tracked")
        weights.setdefault(count, torch.tensor(0))


def get(weights: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    """Return a tensor, or raise ``ValueError`` if it is missing."""
    if name not in weights:
        raise ValueError(
            f"{source} has nothing for {name}; expected a whole Faster R-CNN with its box head"
        )
    return weights[name]
