"""Which parameters of a detector depend on its number of categories, found by construction."""

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

from dap.transfer.language_models import with_language_models_at_hand

Shape = tuple[int, ...]

CLASS_COUNTS = ("num_classes", "num_things_classes", "num_stuff_classes")
# Constructors read the files that these name, or download them.
_FILES = ("init_cfg", "pretrained", "checkpoint_path", "teacher_ckpt")
_WRITTEN_BY_DETRS = {
    "bbox_head": ("share_pred_layer", "num_pred_layer", "as_two_stage"),
    "dn_cfg": ("num_classes", "embed_dims", "num_matching_queries"),
}


def category_dependent_parameters(
    model_cfg: Mapping[str, Any], scope: str = "mmdet"
) -> frozenset[str]:
    """Find the parameters and buffers whose shape depends on the number of categories.

    The detector is built twice without memory for its weights (on torch's meta device): as
    configured, and with every class count raised. What differs in shape, or exists in one of
    the two alone, depends on the categories. So nothing is guessed from names: Faster R-CNN
    has ``fc_cls`` and ``fc_reg``, with ``reg_class_agnostic=True`` ``fc_cls`` alone, DINO also
    the label embedding of its denoising queries.

    Class counts are the integers called ``num_classes``, ``num_things_classes`` and
    ``num_stuff_classes`` anywhere in the config, and the constructors' defaults for those that
    the config leaves out.

    Args:
        model_cfg: The ``model`` part of a detector's config. It is not changed, nothing is
            downloaded, and the default scope and torch's random state stay as they are.
        scope: Registry scope of types without one: the config's ``default_scope``.

    Returns:
        Names as in the detector's ``state_dict``; none for a detector without categories.

    Raises:
        ValueError: If ``model_cfg`` has no ``type``, as a whole config has none, or if it names a
            language model that is not at hand.
        KeyError: If a type of the config is not registered.
    """
    as_configured = state_shapes(model_cfg, scope)
    raised = state_shapes(model_cfg, scope, raise_class_counts_by=64)
    names = as_configured.keys() | raised.keys()
    return frozenset(name for name in names if as_configured.get(name) != raised.get(name))


def state_shapes(
    model_cfg: Mapping[str, Any], scope: str = "mmdet", raise_class_counts_by: int = 0
) -> dict[str, Shape]:
    """Give the names and shapes of a detector's ``state_dict`` without making its weights.

    Args:
        model_cfg: The ``model`` part of a detector's config.
        scope: Registry scope of types without one.
        raise_class_counts_by: Added to each class count of the config.

    Returns:
        Shape of each parameter and persistent buffer by name.

    Raises:
        ValueError: If ``model_cfg`` has no ``type`` or names a language model that is not at hand.
        KeyError: If a type of the config is not registered.
    """
    if "type" not in model_cfg:
        raise ValueError(
            f"expected the `model` part of a detector's config, found keys {sorted(model_cfg)}; "
            "pass config.model"
        )
    from mmdet.registry import MODELS  # not on top: seconds, which most of `dap` need not wait

    with _undisturbed(), DefaultScope.overwrite_default_scope(scope):
        cfg = with_language_models_at_hand(_buildable(model_cfg))
        if raise_class_counts_by:
            cfg = _raised(cfg, raise_class_counts_by, MODELS)
        model = _build_without_weights(cfg, MODELS)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def differing_in_class_count(
    detector: nn.Module, weights: Mapping[str, torch.Tensor]
) -> frozenset[str]:
    """Name the layers of a detector that weights for another class count do not fit.

    Fallback when no config is available. All differences inside the modules that count classes
    must come from one other count in the leading dimension; if any does not, none is named.

    Args:
        detector: The detector.
        weights: Tensors of a detector with the same architecture.

    Returns:
        Names as in the detector's ``state_dict``; none if the class counts are equal.
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
    """Other class counts that turn the shape of ``count`` classes, or one more, into the found."""
    if actual[1:] != wanted[1:] or not actual or not wanted:
        return set()
    per_class = ((k, wanted[0] // k) for k in (count, count + 1) if wanted[0] % k == 0)
    return {actual[0] // n - (k - count) for k, n in per_class if actual[0] % n == 0}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hide what mmdet logs and warns while it builds, and keep torch's random state."""
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
    """Copy a config as plain dicts that can be built here, and any number of times.

    Nothing is left that names a file; MMSyncBN, which asks for the process group, becomes BN with
    the same state; and what DETR and Deformable DETR write into their own config is taken out,
    since they refuse to find it there.
    """
    if isinstance(cfg, Mapping):
        copy: dict[str, Any] = {
            k: _blank(v) if k in _FILES else _buildable(v) for k, v in cfg.items()
        }
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


def _blank(value: object) -> bool | None:
    """Give what stands for no file; TIMMBackbone refuses ``pretrained=None``."""
    return False if isinstance(value, bool) else None


def _raised(cfg: Any, by: int, registry: Registry) -> Any:
    """Copy a config with each class count raised."""
    if isinstance(cfg, dict):
        counts = {k: v for k, v in cfg.items() if k in CLASS_COUNTS and type(v) is int}
        counts = default_class_counts(cfg.get("type"), registry) | counts
        copy = {key: _raised(value, by, registry) for key, value in cfg.items()}
        return copy | {key: count + by for key, count in counts.items()}
    if isinstance(cfg, list | tuple):
        return type(cfg)(_raised(value, by, registry) for value in cfg)
    return cfg


def default_class_counts(kind: object, registry: Registry) -> dict[str, int]:
    """Class counts that a constructor has by default.

    A default of one says that the module tells objects from background, like an RPN; mmdet
    refuses another count there.
    """
    cls = registry.get(kind) if isinstance(kind, str) else kind
    defaults = {key: _default_argument(cls, key) for key in CLASS_COUNTS}
    return {key: value for key, value in defaults.items() if type(value) is int and value > 1}


def _default_argument(cls: object, name: str) -> object:
    """Give a constructor's default for an argument, its base classes' if it passes ``**kwargs``."""
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
    """Build on the meta device, or on the CPU where a constructor reads values back.

    A tensor without memory answers that with a RuntimeError. No detector of mmdet 3.3 needs
    the CPU; it serves heads and backbones that are not known here.
    """
    try:
        with torch.device("meta"), _ReadableSchedules():
            return registry.build(ConfigDict(cfg))
    except RuntimeError:
        return registry.build(ConfigDict(cfg))


class _ReadableSchedules(TorchFunctionMode):
    """Keeps ``torch.linspace`` on the CPU: Swin and ConvNeXt read their drop path rates back."""

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
