"""Find the parameters of a detector that depend on its number of categories."""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, Registry
from torch import nn
from torch.overrides import TorchFunctionMode

from .language_models import with_local_language_models

Shape = tuple[int, ...]

CLASS_COUNTS = ("num_classes", "num_things_classes", "num_stuff_classes")
# Arguments that name files, which constructors read or download.
_FILE_KEYS = {"init_cfg", "pretrained", "checkpoint_path", "teacher_ckpt"}
# Keys that DETR and Deformable DETR write into their own config and reject in their input.
_WRITTEN_BY_DETRS = {
    "bbox_head": ("share_pred_layer", "num_pred_layer", "as_two_stage"),
    "dn_cfg": ("num_classes", "embed_dims", "num_matching_queries"),
}


def category_dependent_parameters(
    model_cfg: Mapping[str, Any], scope: str = "mmdet"
) -> frozenset[str]:
    """Find the parameters and buffers whose shape depends on the number of categories.

    The detector is built twice without memory for its weights (on torch's meta device): as
    configured, and with every class count increased. Tensors that differ in shape, or exist in
    only one of the two, depend on the categories. Names are not used: Faster R-CNN has ``fc_cls``
    and ``fc_reg``, with ``reg_class_agnostic=True`` only ``fc_cls``, and DINO also has the label
    embedding of its denoising queries.

    Class counts are the integers called ``num_classes``, ``num_things_classes`` and
    ``num_stuff_classes`` anywhere in the config, and the constructors' defaults for those that
    the config omits.

    Args:
        model_cfg: The ``model`` part of a detector's config. It is not modified, nothing is
            downloaded, and the default scope and torch's random state are preserved.
        scope: Registry scope of types without one: the config's ``default_scope``.

    Returns:
        Names as in the detector's ``state_dict``; empty for a detector without categories.

    Raises:
        ValueError: If ``model_cfg`` has no ``type`` (such as a whole config), or names a language
            model that is not available locally.
        KeyError: If a type of the config is not registered.
    """
    as_configured = state_shapes(model_cfg, scope)
    raised = state_shapes(model_cfg, scope, raise_class_counts_by=64)
    names = as_configured.keys() | raised.keys()
    return frozenset(name for name in names if as_configured.get(name) != raised.get(name))


def state_shapes(
    model_cfg: Mapping[str, Any], scope: str = "mmdet", raise_class_counts_by: int = 0
) -> dict[str, Shape]:
    """Return the names and shapes of a detector's ``state_dict`` without creating its weights.

    Args:
        model_cfg: The ``model`` part of a detector's config.
        scope: Registry scope of types without one.
        raise_class_counts_by: Number to add to each class count of the config.

    Returns:
        Shape of each parameter and persistent buffer by name.

    Raises:
        ValueError: If ``model_cfg`` has no ``type``, or names a language model that is not
            available locally.
        KeyError: If a type of the config is not registered.
    """
    if "type" not in model_cfg:
        raise ValueError(
            f"expected the `model` part of a detector's config, found keys {sorted(model_cfg)}; "
            "pass config.model"
        )
    from mmdet.registry import MODELS  # imported here because it takes seconds

    with _without_side_effects(), DefaultScope.overwrite_default_scope(scope):
        cfg = with_local_language_models(_buildable(model_cfg))
        if raise_class_counts_by:
            cfg = _raised(cfg, raise_class_counts_by, MODELS)
        model = _build_without_weights(cfg, MODELS)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def differing_in_class_count(
    detector: nn.Module, weights: Mapping[str, torch.Tensor]
) -> frozenset[str]:
    """Find the layers of a detector that differ from some weights by the class count alone.

    Fallback when no config is available. All differences inside modules with ``num_classes`` must
    be explained by a single other class count in the leading dimension; otherwise the result is
    empty.

    Args:
        detector: The detector.
        weights: Tensors of a detector with the same architecture.

    Returns:
        Names as in the detector's ``state_dict``; empty if the class counts are equal.
    """
    counts = {
        f"{name}.": vars(m).get("num_classes") for name, m in detector.named_modules() if name
    }
    counts = {prefix: count for prefix, count in counts.items() if type(count) is int}
    explained: dict[str, set[int]] = {}
    for name, value in detector.state_dict().items():
        inside = [prefix for prefix in counts if name.startswith(prefix)]
        if inside and name in weights and weights[name].shape != value.shape:
            count = counts[max(inside, key=len)]
            explained[name] = _class_counts(weights[name].shape, tuple(value.shape), count)
    common = set.intersection(*explained.values()) if explained else set()
    return frozenset(explained) if common else frozenset()


def _class_counts(actual: Shape, wanted: Shape, count: int) -> set[int]:
    """Class counts that explain the actual shape, if the wanted one is for ``count`` classes.

    The leading dimension is a multiple of ``count``, or of ``count + 1`` with background.
    """
    if actual[1:] != wanted[1:] or not actual or not wanted:
        return set()
    per_class = ((k, wanted[0] // k) for k in (count, count + 1) if wanted[0] % k == 0)
    return {actual[0] // n - (k - count) for k, n in per_class if actual[0] % n == 0}


@contextmanager
def _without_side_effects() -> Iterator[None]:
    """Hide mmdet's log and warnings during construction, and preserve torch's random state."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _buildable(cfg: Any) -> Any:
    """Copy a config to plain dicts that can be built repeatedly and without files.

    Names of files are removed. MMSyncBN, which requires a process group, becomes BN, which has the
    same state. Keys that DETR and Deformable DETR add to their own config are removed.
    """
    if isinstance(cfg, Mapping):
        copy = {key: _buildable(value) for key, value in cfg.items()}
        for key in copy.keys() & _FILE_KEYS:  # TIMMBackbone rejects pretrained=None
            copy[key] = False if isinstance(cfg[key], bool) else None
        if copy.get("type") == "MMSyncBN":
            copy["type"] = "BN"
        if {"encoder", "decoder"} <= copy.keys():
            for part, keys in _WRITTEN_BY_DETRS.items():
                for key in keys:
                    (copy.get(part) or {}).pop(key, None)
        return copy
    if isinstance(cfg, list | tuple):
        return type(cfg)(_buildable(value) for value in cfg)
    return 1.0 if isinstance(cfg, torch.Tensor) else cfg  # DETR's class weight


def _raised(cfg: Any, by: int, registry: Registry) -> Any:
    """Copy a config and increase each class count."""
    if isinstance(cfg, dict):
        counts = {k: v for k, v in cfg.items() if k in CLASS_COUNTS and type(v) is int}
        counts = default_class_counts(cfg.get("type"), registry) | counts
        copy = {key: _raised(value, by, registry) for key, value in cfg.items()}
        return copy | {key: count + by for key, count in counts.items()}
    if isinstance(cfg, list | tuple):
        return type(cfg)(_raised(value, by, registry) for value in cfg)
    return cfg


def default_class_counts(kind: object, registry: Registry) -> dict[str, int]:
    """Return the class counts that a constructor has as defaults.

    A default of one is left out: such a module separates objects from background, like an RPN,
    and mmdet accepts no other count for it.
    """
    cls = registry.get(kind) if isinstance(kind, str) else kind
    defaults = {key: _default_argument(cls, key) for key in CLASS_COUNTS}
    return {key: value for key, value in defaults.items() if type(value) is int and value > 1}


def _default_argument(cls: object, name: str) -> object:
    """Default of a constructor's argument, also of base classes that get ``**kwargs``."""
    for owner in inspect.getmro(cls) if inspect.isclass(cls) else ():
        if not inspect.isfunction(init := vars(owner).get("__init__")):
            continue
        parameters = inspect.signature(init).parameters
        if name in parameters:
            return parameters[name].default
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return None
    return None


def _build_without_weights(cfg: dict[str, Any], registry: Registry) -> nn.Module:
    """Build on the meta device, or on the CPU if a constructor reads values of tensors.

    Reading a tensor on the meta device raises a RuntimeError. No detector of mmdet 3.3 needs the
    CPU; it is a fallback for heads and backbones of other packages.
    """
    try:
        with torch.device("meta"), _ReadableSchedules():
            return registry.build(ConfigDict(cfg))
    except RuntimeError:
        return registry.build(ConfigDict(cfg))


class _ReadableSchedules(TorchFunctionMode):
    """Keeps ``torch.linspace`` on the CPU, since Swin and ConvNeXt read their drop path rates."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)
