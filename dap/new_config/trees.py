"""Nested dicts and lists of configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Copy a part of a config as plain dicts, lists and tuples.

    ``_scope_``, which inheritance adds, and ``backend_args=None``, the default, are left out.
    """
    if isinstance(value, Mapping):
        return {
            key: plain(item)
            for key, item in value.items()
            if key != "_scope_" and not (key == "backend_args" and item is None)
        }
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def merged(first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested dicts; of two values that are not dicts, the later is kept."""
    result = dict(first)
    for other in others:
        for key, value in other.items():
            earlier = result.get(key)
            if isinstance(earlier, Mapping) and isinstance(value, Mapping):
                value = merged(earlier, value)
            result[key] = value
    return result
