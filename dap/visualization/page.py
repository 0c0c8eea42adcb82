"""HTML of the page on the boxes of a run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATE = "page.html.jinja"


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: Its heading.
        paragraphs: Text before all else.
        listing: Text whose lines and columns are kept.
        tables: Caption and rows, the first of which is the head.
        pictures: Caption and ``src``, see :func:`image_source`.
    """

    title: str
    paragraphs: Sequence[str] = ()
    listing: str = ""
    tables: Sequence[tuple[str, Sequence[Sequence[object]]]] = ()
    pictures: Sequence[tuple[str, str]] = ()


def render_page(content: Mapping[str, Any]) -> bytes:
    """Fill the template; all text is escaped, bytes of file names that are no UTF-8 become ?.

    Args:
        content: What :func:`dap.visualization.inspection.inspect_boxes` has collected.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(**content).encode("utf-8", "replace")


def image_source(content: bytes, kind: str) -> str:
    """A picture as the ``src`` of an image that needs no file.

    Args:
        content: Bytes of the file.
        kind: ``png`` or ``jpeg``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
