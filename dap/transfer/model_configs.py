"""Read the config of a detector from a file, a dict or the text in a checkpoint."""

import ast
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from .category_dependent import category_dependent_parameters

# Exceptions of constructors whose config does not fit the installed packages.
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
    """Read the model from a config.

    Args:
        source: A config file, a whole config, or its ``model`` part.

    Returns:
        The model's config and its scope.

    Raises:
        ValueError: If it has no ``model``.
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
    """Parse the config text that MMEngine stores in a checkpoint's ``meta['cfg']``.

    Args:
        text: Output of ``Config.pretty_text``.

    Returns:
        The model's config and its scope, or None if the text does not have them as literals.
    """
    values = parse_values(text, ("model", "default_scope", "data_preprocessor"))
    if not isinstance(values.get("model"), dict):
        return None
    return _as_runner_builds(values)


def parse_values(text: str, names: Collection[str]) -> dict[str, Any]:
    """Parse some top-level values of a config's text.

    Only literals and ``dict(...)`` are evaluated. ``Config.fromstring`` would execute the text,
    and a checkpoint must not be able to run code.

    Args:
        text: Output of ``Config.pretty_text``.
        names: Names of the values.

    Returns:
        The values by name; empty if the text is not a config or one of them is not a literal.
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
    """Find the category-dependent names; report errors of constructors in one sentence.

    Args:
        config: A detector's config.
        source: Origin of the config, for the error.

    Returns:
        Names as in the detector's ``state_dict``.

    Raises:
        ValueError: If the detector cannot be built here.
    """
    try:
        return category_dependent_parameters(*config)
    except UNBUILDABLE as error:
        reason = " ".join(str(error.args[0] if error.args else error).split())
        raise ValueError(
            f"{source}: the detector of its config cannot be built here "
            f"({type(error).__name__}: {reason})."
        ) from error


def _as_runner_builds(config: Mapping[str, Any]) -> ModelConfig:
    """Move a top-level ``data_preprocessor`` into ``model``, as MMEngine's Runner does."""
    model = config["model"]
    if config.get("data_preprocessor") is not None and "data_preprocessor" not in model:
        model = {**model, "data_preprocessor": config["data_preprocessor"]}
    return ModelConfig(model, config.get("default_scope") or "mmdet")


def _literal(node: ast.expr) -> Any:
    """Evaluate an expression of ``Config.pretty_text``: literals, ``dict(...)``, inf and nan."""
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
