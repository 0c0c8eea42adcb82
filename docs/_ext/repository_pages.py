"""Show READMEs of the repository as pages, and keep the links between files of the repository.

A page of docs/ that begins with an include directive is a *stub*: it shows that file, whose own
relative links are rewritten, and below it what the page has after the directive. In all pages a
link to a file that has a stub becomes a link to its page; a link to any other file becomes a
download, and a link to a folder becomes plain text. So the same sources work on a code host and in
the built documentation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STUB = re.compile(r"\A```\{include\} (\S+)\n```\n")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)


def stub_target(page: Path) -> Path | None:
    """The file outside of docs/ that a page shows; None if it is no stub."""
    match = STUB.match(page.read_text())
    return (page.parent / match[1]).resolve() if match else None


def find_stubs() -> dict[Path, Path]:
    """File of the repository → the page of docs/ that shows it; the README → the first page."""
    pages = (page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    stubs = {target: page for page in pages if (target := stub_target(page))}
    return {ROOT / "README.md": DOCS / "index.md", **stubs}


def rewrite_links(text: str, source: Path, page: Path, stubs: dict[Path, Path]) -> str:
    """Rewrite the relative links of a Markdown text for the page that shows it.

    Args:
        text: Markdown; fenced blocks stay as they are.
        source: File that the text comes from; its links are relative to it.
        page: Page of docs/ that shows it.
        stubs: File of the repository → its page.
    """

    def rewrite(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        label = LINK.sub(rewrite, label)
        path, hash_, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return f"{mark}[{label}]({target})"
        file = (source.parent / path).resolve()
        if file.is_dir() and (file / "README.md") in stubs:
            file = file / "README.md"
        if file.is_dir():
            return label
        shown = stubs.get(file, file)
        return f"{mark}[{label}]({os.path.relpath(shown, page.parent)}{hash_}{anchor})"

    parts = FENCE.split(text)
    return "".join(
        part if index % 2 else LINK.sub(rewrite, part) for index, part in enumerate(parts)
    )


def read_source(app: Sphinx, docname: str, content: list[str]) -> None:
    """Replace a stub by its file, and rewrite the links of every page."""
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    stubs = find_stubs()
    text = rewrite_links(STUB.sub("", content[0]), page, page, stubs)
    if source := stub_target(page):
        app.env.note_dependency(str(source))
        text = rewrite_links(source.read_text(), source, page, stubs) + text
    content[0] = text


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True}
