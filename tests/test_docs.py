"""The documentation: it builds without a warning, its links lead somewhere, its quotes are real."""

import ast
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="the documentation is built by the group docs: uv sync")

from tests.support.markdown_files import ROOT, anchors, links, markdown_files

PROJECT_FILES = markdown_files()


def test_it_builds_without_a_warning(tmp_path):
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command, str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    reproduce = (tmp_path / "html" / "reproduce.html").read_text()
    assert 'href="recipes/finetune_coco.html"' in reproduce  # a README of configs/ as a page
    transfer = (tmp_path / "html" / "api" / "transfer.html").read_text()
    assert "dap.transfer.pretrained_detector.PretrainedDetector" in transfer
    assert "<img" in (tmp_path / "html" / "projects" / "quickstart.html").read_text()


@pytest.mark.parametrize("file", PROJECT_FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    """Files and headings are there; of addresses only the syntax can be checked without network."""
    for target in links(file):
        url = urlsplit(target)
        if url.scheme:
            assert url.scheme == "https", f"{target}: expected https"
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", url.netloc), target
            continue
        path = (file.parent / unquote(url.path)).resolve() if url.path else file
        assert path.exists(), f"{target} is not there"
        assert path.is_relative_to(ROOT), f"{target} is outside of the project"
        if url.fragment:
            assert url.fragment in anchors(path), f"{target}: there is no such heading"


def test_anchors_are_those_of_code_hosts(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("# One: `two` (3)\n\n# Again\n\n# Again\n\n# `a … b`\n")
    assert anchors(file) == {"one-two-3", "again", "again-1", "a--b"}


def strings_of(path):
    """All string constants of a Python file; what f-strings insert is a blank."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
            texts.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


def quoted_errors():
    """The headings of the FAQ that are an error text."""
    return re.findall(r"^### `(.+)`$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)


def test_error_texts_of_the_faq_are_in_the_code():
    """Each piece between two dots of omission is in one string, all pieces in one file."""
    files = [*sorted((ROOT / "dap").rglob("*.py")), *sorted((ROOT / "tools").glob("*.py"))]
    texts = {path: "\n".join(strings_of(path)) for path in files}
    errors = quoted_errors()
    assert len(errors) > 25
    for error in errors:
        pieces = [piece.strip() for piece in error.split("…")]
        pieces = [piece for piece in pieces if len(piece) > 3]
        assert max(map(len, pieces)) > 10, f"{error}: too short to be found by"
        assert any(all(piece in text for piece in pieces) for text in texts.values()), error


def test_every_page_is_reached(tmp_path):
    """Stubs show an existing file, and every README of configs/ and projects/ has a stub."""
    stub = re.compile(r"\A```\{include\} (\S+)\n```\n")
    pages = [f for f in PROJECT_FILES if f.is_relative_to(ROOT / "docs")]
    matches = {page: stub.match(page.read_text()) for page in pages}
    shown = {(page.parent / m[1]).resolve() for page, m in matches.items() if m}
    assert all(file.is_file() for file in shown)
    readmes = {p for f in ("configs", "projects") for p in (ROOT / f).rglob("README.md")}
    assert readmes <= shown
