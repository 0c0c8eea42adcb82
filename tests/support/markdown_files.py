"""The Markdown files of the project, and what stands in them."""

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:^<!-- run: (?P<place>\w+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


class Block(NamedTuple):
    """A fenced block; ``place`` is the name in the line ``<!-- run: NAME -->`` above it."""

    file: Path
    language: str
    text: str
    place: str | None


def markdown_files():
    """README.md, docs/ and all other README.md, in sorted order."""
    files = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")}
    for folder in ("configs", "projects", "tools"):
        files.update((ROOT / folder).rglob("*.md"))
    return sorted(file for file in files if "_build" not in file.parts)


def blocks(file, language):
    """The fenced blocks of a language in a file."""
    matches = FENCE.finditer(file.read_text())
    return [
        Block(file, m["language"], m["text"], m["place"])
        for m in matches
        if m["language"] == language
    ]


def commands(text):
    """The commands of a bash block: continued lines joined, comments and empty lines left out."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [re.sub(r"\s+#\s.*$", "", line) for line in lines if line and not line.startswith("#")]


def links(file):
    """Targets of all links and images of a file, as written."""
    tokens = MarkdownIt("commonmark").enable("table").parse(file.read_text())
    inline = (child for token in tokens for child in token.children or ())
    targets = (token.attrGet("href") or token.attrGet("src") for token in inline)
    return [target for target in targets if target]


def anchors(file):
    """Anchors of the headings of a Markdown file, as code hosts and MyST make them."""
    tokens = MarkdownIt("commonmark").parse(file.read_text())
    titles = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "heading_open"]
    names, seen = set(), {}
    for title in titles:
        plain = "".join(c.content for c in title.children if c.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = seen[slug] = seen.get(slug, -1) + 1
        names.add(f"{slug}-{number}" if number else slug)
    return names
