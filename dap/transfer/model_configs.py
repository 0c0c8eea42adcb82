"""Where the config of a detector comes from: the caller, a checkpoint, or the living objects."""

import ast
import gc
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from dap.transfer.category_dependent import state_shapes

# What constructors raise when a config does not fit the installed packages.
UNBUILDABLE = (
    AssertionError,
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ModelConfig(NamedTuple):
    """The ``model`` part of a config, and the registry scope of its types."""

    model: Mapping[str, Any]
    scope: str = "mmdet"


def read_model_config(
    source: str | os.PathLike[str] | Config | Mapping[str, Any],
) -> ModelConfig:
    """Take the model out of a config.

    Args:
        source: A config file, a whole config, or its ``model`` part.

    Returns:
        The model's config and its scope.

    Raises:
        ValueError: If there is no ``model`` in it.
    """
    config = Config.fromfile(source) if isinstance(source, str | os.PathLike) else source
    if "model" in config:
        return ModelConfig(config["model"], config.get("default_scope") or "mmdet")
    if isinstance(config, Mapping) and "type" in config:
        return ModelConfig(config)
    named = source if isinstance(source, str | os.PathLike) else "the given config"
    raise ValueError(
        f"{named} has no `model`; found keys {sorted(config.keys())}. Pass a detector's config, "
        "its path or its `model` part."
    )


def parse_model_config(text: str) -> ModelConfig | None:
    """Read the config text that MMEngine keeps in a checkpoint's ``meta['cfg']``.

    ``Config.fromstring`` would execute it; a checkpoint must not be able to run code, so that
    only literals and ``dict(...)`` are taken.

    Args:
        text: What ``Config.pretty_text`` gave.

    Returns:
        The model's config and its scope, or None if the text does not hold them as literals.
    """
    try:
        values = {
            statement.targets[0].id: _literal(statement.value)
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError):
        return None
    if not isinstance(values.get("model"), dict):
        return None
    return ModelConfig(values["model"], values.get("default_scope") or "mmdet")


def _literal(node: ast.expr) -> Any:
    """Evaluate what ``Config.pretty_text`` writes: literals, ``dict(...)``, inf and nan."""
    match node:
        case ast.Dict(keys=keys, values=values):
            return {_literal(k): _literal(v) for k, v in zip(keys, values, strict=True) if k}
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            positional = {k: v for arg in args for k, v in _literal(arg).items()}
            return positional | {k.arg: _literal(k.value) for k in keywords}
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_literal(operand)
        case ast.Name(id="inf" | "nan" as number):
            return float(number)
    return ast.literal_eval(node)


def find_live_config(module: nn.Module) -> ModelConfig | None:
    """Find the config that a built detector came from among the objects that are alive.

    A module keeps no config, and a state dict without ``meta`` names none either; yet whoever
    has built the detector mostly still holds the config, a Runner as ``runner.cfg``. A config is
    taken only if a detector built from it has the module's very names and shapes.

    Args:
        module: The detector.

    Returns:
        Its config, or None if none that fits is alive.
    """
    scope = DefaultScope.get_current_instance()
    scope_name = scope.scope_name if scope else "mmdet"
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for candidate in _candidates(module):
        try:
            if state_shapes(candidate, scope_name) == expected:
                return ModelConfig(candidate, scope_name)
        except UNBUILDABLE:  # of another version, half made, or no config at all
            continue
    return None


def _candidates(module: nn.Module) -> Iterator[Mapping[str, Any]]:
    """Dicts of the module's type, those with its very ``init_cfg`` first."""
    name = type(module).__name__
    found: list[Mapping[str, Any]] = []
    for thing in gc.get_objects():
        if type(thing) is not dict and type(thing) is not ConfigDict:
            continue
        kind = thing.get("type")
        if kind is type(module) or (isinstance(kind, str) and kind.split(".")[-1] == name):
            found.append(thing)
    init_cfg = getattr(module, "init_cfg", None)
    yield from sorted(found, key=lambda config: config.get("init_cfg") != init_cfg)
