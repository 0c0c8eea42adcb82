"""HTML of the page that shows the boxes of a run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATE = "page.html.jinja"


class Section(NamedTuple):
    """A section of a page.

    Attributes:
        title: Heading.
        paragraphs: Text at the beginning.
        listing: Preformatted text.
        tables: Caption and rows of each table; the first row is the head.
        pictures: Caption and ``src`` of each picture, see :func:`image_source`.
    """

    title: str
    paragraphs: Sequence[str] = ()
    listing: str = ""
    tables: Sequence[tuple[str, Sequence[Sequence[object]]]] = ()
    pictures: Sequence[tuple[str, str]] = ()


def render_page(content: Mapping[str, Any]) -> bytes:
    """Fill the template. All text is escaped; what UTF-8 cannot encode becomes ``?``.

    Args:
        content: Variables of the template.
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
    """Encode a picture as a data URI, the ``src`` of an image that needs no file.

    Args:
        content: Content of the picture's file.
        kind: ``png`` or ``jpeg``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
