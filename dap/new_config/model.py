"""Changes of a detector's model: class counts, mask heads, fixed BatchNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from dap.transfer.category_dependent import CLASS_COUNTS, default_class_counts

from .code import Code
from .trees import merged, plain

_COUNT = Code("num_classes")
# Parts whose class count is not that of the data: an RPN has one class, objects.
_OTHER_COUNTS = ("rpn_head", "init_cfg")
_PANOPTIC = ("num_things_classes", "num_stuff_classes")


def check_detector(model: Mapping[str, Any], name: str, has_masks: bool = False) -> None:
    """Reject models that cannot be trained on boxes with categories.

    Args:
        model: The ``model`` part of a config.
        name: Name of the config, for the message.
        has_masks: Whether the boxes have masks.

    Raises:
        ValueError: If the model has no box head, or needs other annotations than boxes.
    """
    head = _box_head(model)
    kind = str(model.get("type"))
    reason = ""
    if isinstance(model.get("detector"), Mapping):
        reason = "wraps another detector (semi-supervised learning, tracking). Give that config"
    elif any(key in str(model) for key in _PANOPTIC):
        reason = "does panoptic segmentation, which needs masks of things and stuff"
    elif "language_model" in model:
        reason = "takes its categories from texts; it has no class count to set"
    elif head is None:
        reason = "has no bbox_head and no roi_head.bbox_head, so it cannot learn categories"
    elif needs_masks(model) and not has_masks:
        reason = (
            "is trained on masks, which these boxes do not have. Give the box detector of the same "
            "family, or boxes with masks (generate_pseudo_boxes.py --masks)"
        )
    elif kind == "FastRCNN":
        reason = "needs files of proposals. Give a Faster R-CNN"
    if reason:
        raise ValueError(f"{name}: {kind} {reason}")


def needs_masks(model: Mapping[str, Any]) -> bool:
    """Whether a detector cannot be trained without masks, such as RTMDet-Ins and CondInst."""
    return "Ins" in str(_first(_box_head(model)).get("type")) or bool(model.get("mask_head"))


def class_counts(config: Config) -> dict[str, Any]:
    """Set every class count of a model to the variable ``num_classes``.

    As in :mod:`dap.transfer.category_dependent`, class counts are recognised by name, at any depth
    and in lists, and as defaults of constructors.

    Args:
        config: The config to inherit from.

    Returns:
        Changes of ``model``. Lists are written in full, or derived from those of ``_base_``.

    Raises:
        ValueError: If the model has no class count.
    """
    with DefaultScope.overwrite_default_scope(config.get("default_scope") or "mmdet"):
        changes = _counts(config.model, "_base_.model")
    if not changes:
        raise ValueError(f"{config.filename}: the model has no class count to set")
    assert isinstance(changes, dict)
    return changes


def _counts(node: Any, path: str) -> Any:
    """Changes of a part of the model; None if there are none."""
    if isinstance(node, Mapping):
        counts = {key for key, value in node.items() if key in CLASS_COUNTS and _is_count(value)}
        counts |= default_class_counts(node.get("type"), MODELS).keys() - node.keys()
        changes: dict[str, Any] = dict.fromkeys(sorted(counts), _COUNT)
        for key, value in node.items():
            if key not in _OTHER_COUNTS and (inside := _counts(value, f"{path}.{key}")):
                changes[key] = inside
        return changes or None
    if isinstance(node, list | tuple):
        return _counts_of_list(node, path)
    return None


def _counts_of_list(items: Any, path: str) -> Any:
    changes = [_counts(item, f"{path}[{number}]") for number, item in enumerate(items)]
    if not any(changes):
        return None
    if all(change == {"num_classes": _COUNT} for change in changes):
        return Code(f"[dict(head, num_classes=num_classes) for head in {path}]")
    pairs = zip(items, changes, strict=True)
    return [merged(plain(item), change or {}) for item, change in pairs]


def _is_count(value: object) -> bool:
    return type(value) is int


def without_masks(model: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of ``model`` that remove its mask head; empty if it has none."""
    head = model.get("roi_head") or {}
    names = ("mask_head", "mask_roi_extractor", "mask_iou_head", "point_head", "semantic_head")
    removed = {name: None for name in names if head.get(name) is not None}
    return {"roi_head": removed} if removed else {}


def without_segmentation(model: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of ``model`` that remove its semantic head, which learns from segmentation maps."""
    semantic = (model.get("roi_head") or {}).get("semantic_head")
    return {"roi_head": {"semantic_head": None}} if semantic is not None else {}


def fixed_batch_norm(model: Mapping[str, Any]) -> dict[str, Any]:
    """Fix scale and shift of a backbone's BatchNorm if its statistics are fixed already.

    The paper trains its ResNets this way (section 4.1). Backbones that train their BatchNorm, or
    have another norm, are not changed.
    """
    backbone = model.get("backbone") or {}
    norm = backbone.get("norm_cfg") or {}
    learns_affine = backbone.get("norm_eval") and norm.get("requires_grad", True)
    if not learns_affine or norm.get("type") != "BN":
        return {}
    return {"backbone": {"norm_cfg": {"requires_grad": False}}}


def _box_head(model: Mapping[str, Any]) -> Any:
    head = model.get("bbox_head")
    return head if head is not None else (model.get("roi_head") or {}).get("bbox_head")


def _first(head: Any) -> Mapping[str, Any]:
    first = head[0] if isinstance(head, list | tuple) else head
    return first if isinstance(first, Mapping) else {}
