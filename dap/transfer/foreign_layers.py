"""The layers of torchvision's and maskrcnn-benchmark's Faster R-CNN, renamed and put in order."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MMDET_EPS = 1e-5  # of mmdet's BatchNorm
_RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors, as mmdet orders them
_END = r"\.(weight|bias)"
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(?:stem\.)?(conv1|bn1)\.(.+)", r"backbone.\1.\2"),
    (r"backbone\.body\.(layer[1-4]\..+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?" + _END, r"neck.lateral_convs.\1.conv.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?" + _END, r"neck.fpn_convs.\1.conv.\2"),
    *(
        (rf"backbone\.fpn\.fpn_inner{i + 1}" + _END, rf"neck.lateral_convs.{i}.conv.\1")
        for i in range(4)
    ),
    *(
        (rf"backbone\.fpn\.fpn_layer{i + 1}" + _END, rf"neck.fpn_convs.{i}.conv.\1")
        for i in range(4)
    ),
    (r"rpn\.head\.conv(?:\.0\.0)?" + _END, r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits" + _END, r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred" + _END, r"rpn_head.rpn_reg.\1"),
    (
        r"roi_heads\.box(?:_head|\.feature_extractor)\.fc6" + _END,
        r"roi_head.bbox_head.shared_fcs.0.\1",
    ),
    (
        r"roi_heads\.box(?:_head|\.feature_extractor)\.fc7" + _END,
        r"roi_head.bbox_head.shared_fcs.1.\1",
    ),
    (
        r"roi_heads\.box(?:_predictor|\.predictor)\.cls_score" + _END,
        r"roi_head.bbox_head.fc_cls.\1",
    ),
    (
        r"roi_heads\.box(?:_predictor|\.predictor)\.bbox_pred" + _END,
        r"roi_head.bbox_head.fc_reg.\1",
    ),
)
_ANCHORS = re.compile(r"rpn\.anchor_generator\.cell_anchors\.\d+$")
_PLAIN_NAMES = ("backbone.body.conv1.weight", "backbone.body.stem.conv1.weight")


def is_of_benchmark(weights: Mapping[str, Tensor], source: str) -> bool:
    """Say whether weights are maskrcnn-benchmark's rather than torchvision's.

    Args:
        weights: Tensors by name.
        source: Their file, for the messages, as in all functions here.

    Raises:
        ValueError: If they are neither's.
    """
    present = [name for name in _PLAIN_NAMES if name in weights]
    if len(present) != 1:
        raise ValueError(
            f"{source} is no Faster R-CNN of torchvision or maskrcnn-benchmark: expected "
            f"{' or '.join(_PLAIN_NAMES)}, found {', '.join(list(weights)[:3])} … mmdet's own "
            "detectors need no conversion"
        )
    return present[0] == _PLAIN_NAMES[1]


def rename(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give copies of tensors mmdet's names; the anchors are left out.

    Raises:
        ValueError: If a tensor has no place in mmdet's Faster R-CNN.
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
    """Find which anchor of the checkpoint is mmdet's first, second, …: that of the least ratio.

    Args:
        weights: Tensors by their original names, with the anchors (A, 4) or without.
        ratios: Height / width of each anchor, in the order of the channels; in place of those in
            the checkpoint.
        source: The file.

    Returns:
        Numbers of the anchors in the checkpoint, in mmdet's order.

    Raises:
        ValueError: If these are not three anchors of the ratios .5, 1 and 2.
    """
    anchors = next((weights[name] for name in sorted(weights) if _ANCHORS.match(name)), None)
    if ratios is None and anchors is not None:
        sides = (anchors[:, 2:] - anchors[:, :2]).double() + 1  # both ends are inside
        ratios = (sides[:, 1] / sides[:, 0]).tolist()
    given = list(_RATIOS if ratios is None else ratios)
    order = sorted(range(len(given)), key=lambda number: given[number])
    expected = zip((given[number] for number in order), _RATIOS, strict=False)
    if len(given) != len(_RATIOS) or any(abs(math.log2(a / b)) > 0.3 for a, b in expected):
        raise ValueError(
            f"{source}: anchors have the ratios {[round(ratio, 2) for ratio in given]}; expected "
            f"{list(_RATIOS)} in any order, one size per level"
        )
    return order


def reorder_anchors(weights: dict[str, Tensor], order: Sequence[int], source: str) -> None:
    """Bring the RPN's channels into mmdet's order of anchors, in place.

    Raises:
        ValueError: If there are other numbers of channels.
    """
    for part, rows in (("rpn_cls", 1), ("rpn_reg", 4)):
        for end in ("weight", "bias"):
            name = f"rpn_head.{part}.{end}"
            value = get(weights, name, source)
            if len(value) != rows * len(order):
                raise ValueError(
                    f"{source}: {part} has {len(value)} channels; expected {rows * len(order)}, "
                    f"{rows} for each of {len(order)} anchors"
                )
            per_anchor = value.unflatten(0, (len(order), rows))
            weights[name] = per_anchor[list(order)].flatten(0, 1).contiguous()


def move_background(weights: dict[str, Tensor], first: bool, source: str) -> tuple[int, bool]:
    """Put the background last in the class scores and out of the regressions, in place.

    Eight regressions beside three class scores are those of two classes if the background is
    last, as in Detectron2, and otherwise those of one regressor with a row for the background.

    Returns:
        Number of classes, and whether one regressor serves all.

    Raises:
        ValueError: If the number of regressions fits none of both.
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
    for end in ("weight", "bias"):
        scores, boxes = (
            get(weights, f"{head}.{part}.{end}", source) for part in ("fc_cls", "fc_reg")
        )
        if first:
            weights[f"{head}.fc_cls.{end}"] = torch.cat([scores[1:], scores[:1]])
        if drop:
            weights[f"{head}.fc_reg.{end}"] = (boxes[4:] if first else boxes[:-4]).clone()
    return classes, agnostic


def shift_variances(weights: dict[str, Tensor], eps: float) -> None:
    """Let a BatchNorm that adds 1e-5 to its variance give what one that adds ``eps`` gave."""
    for name in [name for name in weights if name.endswith(".running_var")]:
        weights[name] = (weights[name].double() + (eps - MMDET_EPS)).float()
        count = name.replace("running_var", "num_batches_tracked")
        weights.setdefault(count, torch.tensor(0))


def get(weights: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    """Give a tensor, or raise a ValueError that says that it is absent."""
    if name not in weights:
        raise ValueError(
            f"{source} has nothing for {name}; expected a whole Faster R-CNN with its box head"
        )
    return weights[name]
