"""Write values as the Python code of a config that people can read and edit."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 100


class Code(str):
    """Python code that is written to a config unchanged, such as the name of a variable."""

    __slots__ = ()


def config_text(
    docstring: str, base: str, values: Mapping[str, Any], notes: Mapping[str, str]
) -> str:
    """Write an inheriting config.

    Args:
        docstring: First line of the config.
        base: Value of ``_base_``.
        values: Name → value: numbers, strings, None, :class:`Code`, dicts, lists, tuples.
        notes: Name → comment beside or above its value.

    Returns:
        Content of the file.

    Raises:
        TypeError: If a value has another type.
    """
    first = docstring.replace("\\", "/").replace('"', "'")
    lines = [f'"""{first}"""', f"_base_ = {json.dumps(base)}"]
    for name, value in values.items():
        lines += _noted(_written(value, f"{name} = ", "", 0), notes.get(name, ""))
    return "\n".join(lines) + "\n"


def _noted(lines: list[str], note: str) -> list[str]:
    """Add a comment beside the first line of a value if it fits, else above."""
    if not note:
        return lines
    beside = f"{lines[0]}  # {note}"
    return [beside, *lines[1:]] if len(beside) <= _WIDTH else [f"# {note}", *lines]


def _written(value: Any, before: str, after: str, indent: int) -> list[str]:
    """Write a value in one line if it fits; else one line per list item, dicts in filled lines."""
    start = " " * indent + before
    line = start + one_line(value) + after
    if len(line) <= _WIDTH or not isinstance(value, Mapping | list | tuple) or not value:
        return [line]
    opening, closing = _brackets(value)
    items = list(_items(value))
    if len(items) == 1 and not isinstance(value, tuple):  # dict(dataset=dict( on one line
        key, item = items[0]
        return _written(item, before + opening + key, closing + after, indent)
    lines = [start + opening]
    fills = False
    for key, item in items:
        written = _written(item, key, ",", indent + 4)
        packed = f"{lines[-1]} {written[0].lstrip()}"
        if fills and len(written) == 1 and len(packed) <= _WIDTH:
            lines[-1] = packed
        else:
            lines += written
        fills = isinstance(value, Mapping) and len(written) == 1
    ending = closing + after
    last = lines[-1].removesuffix(",") + ending
    return [*lines[:-1], last] if len(last) <= _WIDTH else [*lines, " " * indent + ending]


def one_line(value: Any) -> str:
    """Write a value as Python in one line.

    Raises:
        TypeError: If a config cannot hold its type.
    """
    if isinstance(value, Mapping | list | tuple):
        opening, closing = _brackets(value)
        items = ", ".join(key + one_line(item) for key, item in _items(value))
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return opening + items + comma + closing
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    raise TypeError(f"a config cannot hold {value!r}, a {type(value).__name__}")


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ("dict(", ")") if _has_plain_keys(value) else ("{", "}")
    return ("[", "]") if isinstance(value, list) else ("(", ")")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items of a container, each with the code of its key, such as ``'lr='``."""
    if not isinstance(value, Mapping):
        yield from (("", item) for item in value)
    elif _has_plain_keys(value):
        yield from ((f"{key}=", item) for key, item in value.items())
    else:
        yield from ((f"{one_line(key)}: ", item) for key, item in value.items())


def _has_plain_keys(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and k.isidentifier() and not keyword.iskeyword(k) for k in value)
