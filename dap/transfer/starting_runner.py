"""Find the Runner that is initialising a detector, through MMEngine's message hub."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.logging import MessageHub
from mmengine.runner import find_latest_checkpoint
from torch import nn

from .model_configs import ModelConfig, parse_model_config, parse_values


class StartingRunner(NamedTuple):
    """A Runner between the building of its model and its first iteration.

    Attributes:
        detector: Config of the detector that it initialises.
        load_from: Checkpoint that it loads into the whole model afterwards, or None.
        resumes: Checkpoint of the training that it resumes, which replaces all weights, or None.
    """

    detector: ModelConfig
    load_from: str | None = None
    resumes: str | None = None


def starting_runner(module: nn.Module) -> StartingRunner | None:
    """Find the Runner that is initialising a detector.

    MMEngine's ``RuntimeInfoHook``, which every Runner has by default, writes the Runner's config
    into the message hub before the model is initialised, and the number of iterations after it.
    The config is used if it contains a model with the ``init_cfg`` of the detector.

    Args:
        module: The detector.

    Returns:
        Values of the Runner's config, or None if no Runner of this detector is starting.
    """
    hub = MessageHub.get_current_instance()
    text = hub.get_info("cfg")
    if not isinstance(text, str) or hub.get_info("max_iters") is not None:
        return None
    config = parse_model_config(text)
    model = next(_models_of(module, config.model), None) if config else None
    if config is None or model is None:
        return None
    values = parse_values(text, ("load_from", "resume", "work_dir"))
    load_from = values.get("load_from")
    if not values.get("resume"):
        return StartingRunner(ModelConfig(model, config.scope), load_from)
    resumes = load_from or find_latest_checkpoint(values.get("work_dir") or ".")
    return StartingRunner(ModelConfig(model, config.scope), resumes=resumes)


def _models_of(module: nn.Module, config: object) -> Iterator[Mapping[str, Any]]:
    """Yield the dicts of a config, at any depth, that have the ``init_cfg`` of the detector."""
    if isinstance(config, Mapping):
        init_cfg = config.get("init_cfg")
        if init_cfg and _comparable(init_cfg) == _comparable(getattr(module, "init_cfg", None)):
            yield config
        for value in config.values():
            yield from _models_of(module, value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _models_of(module, value)


def _comparable(init_cfg: object) -> object:
    """Normalise an ``init_cfg`` for comparison: types become class names, as in the text."""
    if isinstance(init_cfg, Mapping):
        copy = {key: _comparable(value) for key, value in init_cfg.items()}
        kind = copy.get("type")
        return copy if not isinstance(kind, str) else {**copy, "type": kind.split(".")[-1]}
    if isinstance(init_cfg, list | tuple):
        return [_comparable(value) for value in init_cfg]
    return init_cfg.__name__ if isinstance(init_cfg, type) else init_cfg
