"""The config of a detector, from the caller or from a text, and what it tells."""

import ast
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from dap.transfer.category_dependent import category_dependent_parameters

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
        return _as_runner_builds(config)
    if isinstance(config, Mapping) and "type" in config:
        return ModelConfig(config)
    named = source if isinstance(source, str | os.PathLike) else "the given config"
    raise ValueError(
        f"{named} has no `model`; found keys {sorted(config.keys())}. Pass a detector's config, "
        "its path or its `model` part."
    )


def parse_model_config(text: str) -> ModelConfig | None:
    """Read the config text that MMEngine keeps in a checkpoint's ``meta['cfg']``.

    Args:
        text: What ``Config.pretty_text`` gave.

    Returns:
        The model's config and its scope, or None if the text does not hold them as literals.
    """
    values = parse_values(text, ("model", "default_scope", "data_preprocessor"))
    if not isinstance(values.get("model"), dict):
        return None
    return _as_runner_builds(values)


def parse_values(text: str, names: Collection[str]) -> dict[str, Any]:
    """Read some top-level values of a config's text.

    ``Config.fromstring`` would execute it; a checkpoint must not be able to run code, so that
    only literals and ``dict(...)`` are taken.

    Args:
        text: What ``Config.pretty_text`` gave.
        names: Which values.

    Returns:
        The values by name; none if the text is no config or one of them is no literal.
    """
    try:
        return {
            statement.targets[0].id: _literal(statement.value)
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id in names
        }
    except (SyntaxError, ValueError):
        return {}


def dependent_by_config(config: ModelConfig, source: str) -> frozenset[str]:
    """Find the category-dependent names, and turn what constructors raise into one sentence.

    Args:
        config: A detector's config.
        source: Whose config it is, for the error.

    Returns:
        Names as in the detector's ``state_dict``.

    Raises:
        ValueError: If the detector cannot be built here.
    """
    try:
        return category_dependent_parameters(*config)
    except UNBUILDABLE as error:
        what = " ".join(str(error.args[0] if error.args else error).split())
        raise ValueError(
            f"{source}: the detector of its config cannot be built here "
            f"({type(error).__name__}: {what})."
        ) from error


def _as_runner_builds(config: Mapping[str, Any]) -> ModelConfig:
    """Put a ``data_preprocessor`` beside ``model`` into it, as MMEngine's Runner does."""
    model = config["model"]
    if config.get("data_preprocessor") is not None and "data_preprocessor" not in model:
        model = {**model, "data_preprocessor": config["data_preprocessor"]}
    return ModelConfig(model, config.get("default_scope") or "mmdet")


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
