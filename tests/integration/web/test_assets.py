"""Files for browsers are those of their packages, and need nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import outbox.web

STATIC = Path(outbox.web.__file__).parent / "static"
AXE = Path(__file__).parents[2] / "support" / "axe"
OWN = {"charts.js", "dashboard.css", "dashboard.js", "favicon.svg", "vendored.json"}


def test_vendored_files_are_those_that_were_published() -> None:
    listed = {
        name: file["sha256"]
        for package in json.loads((STATIC / "vendored.json").read_text())
        for name, file in package["files"].items()
    }
    there = {str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file()}
    assert there - OWN == set(listed)
    for name, checksum in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == checksum, name


def test_the_axe_of_the_tests_is_the_one_that_was_published() -> None:
    [package] = json.loads((AXE / "vendored.json").read_text())
    for name, file in package["files"].items():
        assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == file["sha256"], name


def test_each_vendored_package_has_a_version_and_a_licence() -> None:
    for package in json.loads((STATIC / "vendored.json").read_text()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"] in {"0BSD", "ISC", "MIT"}


def test_no_file_of_ours_names_another_host() -> None:
    templates = STATIC.parent / "templates"
    for path in [*templates.glob("*.html"), *(STATIC / name for name in OWN if (STATIC / name).exists())]:
        found = set(re.findall(r"(?:https?:)?//[a-z][\w.]+", path.read_text())) - {"http://www.w3.org"}
        assert not found, f"{path.name}: {found}"


def test_templates_have_no_inline_style_or_handler() -> None:
    for path in (STATIC.parent / "templates").glob("*.html"):
        assert not re.findall(r"\s(?:style|on[a-z]+)=", path.read_text()), path.name
