"""Tests reach the product by its public names: what is private may change, and no test has to know of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "_exit"}
"""Documented names: of named tuples, and `os._exit`."""

BY_NAME = {"setattr", "getattr", "delattr", "hasattr"}
"""Functions and methods whose second argument is a name, or their first, with the module before it."""

LIBRARIES = {
    # redis-py has no public name for the connections of a client that are in use.
    "conformance/conftest.py": {"_in_use_connections", "_connections", "_free"},
    # Between its look whether a connection is there and its use of it, nothing public of redis-py is called.
    "integration/clusters/test_redis_topologies.py": {"_send_packed_command"},
    # SQLAlchemy looks there whether any engine has a listener.
    "support/every_engine.py": {"_has_events"},
}
"""Names of other libraries, where these have no public ones for the purpose."""


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_reaches_a_private_name(file: Path) -> None:
    named = LIBRARIES.get(str(file.relative_to(TESTS)), set())
    found = list(private_names(ast.parse(file.read_text(encoding="utf-8"))))
    assert {name for _, name in found} == named, "\n".join(f"{line}: {name}" for line, name in found)


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Private names of modules and objects that this file does not define itself, with their lines."""
    own = set(defined(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("outbox"):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.Call) and called(node) in BY_NAME:
            names = [name for argument in node.args[:2] for name in text(argument).split(".")]
        elif isinstance(node, ast.Constant):
            names = text(node).split(".") if re.fullmatch(r"outbox[.\w]*", text(node)) else []
        else:
            continue
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in own | PUBLIC:
                yield node.lineno, name


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_a_private_name_is_found() -> None:
    source = "from outbox.x import _y\nclass A:\n  def b(self, other):\n    self._c = other._d\n    other._c = 1\n"
    assert list(private_names(ast.parse(source))) == [(1, "_y"), (4, "_d")]
    source = "LIMIT = 'outbox.x._a'\nsetattr(x, '_b', 1)\npatch.setattr('app.x._c', 1)\npatch.setattr(x, 'd', '_e')"
    assert list(private_names(ast.parse(source))) == [(1, "_a"), (2, "_b"), (3, "_c")]
