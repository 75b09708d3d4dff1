"""What can be checked of how pages are written: the width of their lines, and links that lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import outbox
from outbox.options import CLASS_OPTIONS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WIDTH = 100
MOST_WORDS = 25

NOT_WRAPPED = {"architecture.md", "0004-jobs-in-redis.md", "0008-standing-claims.md", "0008-blocking-claims.md"}
NOT_WRAPPED |= {"0009-gaps-that-applications-hold.md", "0009-what-a-claim-locks.md"}

UNNAMED = re.compile(r"\b(whoever|(some|any|every|no)body|(some|any|every|no )one)\b", re.IGNORECASE)
"""A worker, a transaction, an operator: a sentence says which of them it is about."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that can be wrapped: neither code, nor tables, headings or pictures."""
    code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.lstrip().startswith(("|", "#", "!", "<!--")):
            yield number, line


@pytest.mark.parametrize("path", [page for page in PAGES if page.name not in NOT_WRAPPED], ids=_name)
def test_paragraphs_are_wrapped(path: Path) -> None:
    long = [number for number, line in _prose(path) if len(line) > WIDTH and " " in line.strip()]
    assert not long, f"{_name(path)}: lines {long}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```|`[^`]+`", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing, f"{_name(path)}: {missing}"


def _anchors(path: Path) -> set[str]:
    """Those that GitHub makes of headings."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found) for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_to_headings(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", path.read_text())
    missing = [
        f"{file}#{anchor}" for file, anchor in links if anchor not in _anchors((path.parent / file) if file else path)
    ]
    assert not missing, f"{_name(path)}: {missing}"


def test_lists_of_pages_and_examples_are_complete() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [page.name for page in PAGES if page.parent.name == "docs" and f"(docs/{page.name})" not in readme]
    examples = ROOT / "docs" / "examples"
    listed = (examples / "README.md").read_text()
    files = [str(path.relative_to(examples)) for path in examples.rglob("*.py")]
    assert not [name for name in files if f"]({name})" not in listed]


@pytest.mark.parametrize("option", [*CLASS_OPTIONS, "name", "aliases", "version", "middleware", "redact"])
def test_every_option_of_jobs_is_listed(option: str) -> None:
    text = (ROOT / "docs" / "dispatching.md").read_text()
    assert re.search(rf"^\|[^|]*`{option}`[^|]*\|", text, re.MULTILINE)


@pytest.mark.parametrize("page", ["databases.md", "migrations.md"])
def test_every_table_is_named(page: str) -> None:
    """Administrators grant rights on them, and back them up."""
    text = (ROOT / "docs" / page).read_text()
    missing = [table for table in outbox.metadata.tables if f"`{table}`" not in text]
    assert not missing, f"{page}: {missing}"


def _docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def _sentences(docstring: str) -> Iterator[str]:
    """Without tables, trees and blocks of code."""
    for block in re.split(r"\n\s*\n", docstring):
        lines = [line.strip() for line in block.splitlines()]
        if not any(line.startswith(("====", "::", "|", "├")) for line in lines):
            yield from re.split(r"(?<=[.!?:;])\s+", " ".join(lines))


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_pages_say_whom_they_mean(path: Path) -> None:
    found = [number for number, line in _prose(path) if UNNAMED.search(line)]
    assert not found, f"{_name(path)}: lines {found}"


def test_docstrings_say_whom_they_mean() -> None:
    files = sorted((ROOT / "outbox").rglob("*.py"))
    found = [f"{_name(path)}: {text}" for path in files for text in _docstrings(path) if UNNAMED.search(text)]
    assert files
    assert not found, "\n".join(found)


def test_sentences_of_docstrings_are_short() -> None:
    files = sorted((ROOT / "outbox").rglob("*.py"))
    sentences = [(_name(path), each) for path in files for text in _docstrings(path) for each in _sentences(text)]
    assert sentences
    long = [f"{name}: {sentence}" for name, sentence in sentences if len(sentence.split()) > MOST_WORDS]
    assert not long, "\n".join(long)
