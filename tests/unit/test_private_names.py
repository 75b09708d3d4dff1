"""Tests reach the product by its public names: what is private may change, and no test has to know of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "_exit"}
"""Documented names: of named tuples, and `os._exit`."""

STILL: dict[str, int] = {
    "app/test_consumer.py": 1,
    "conformance/conftest.py": 3,
    "integration/claiming/test_snapshots.py": 1,
    "integration/clusters/test_redis_topologies.py": 5,
    "integration/database/test_database_faults.py": 1,
    "integration/database/test_sqlite_hops.py": 6,
    "integration/redis/test_blocking_claims.py": 9,
    "integration/redis/test_redis_handover.py": 10,
    "integration/redis/test_redis_raw_connection.py": 3,
    "integration/wakeups/test_wakeups_binlog.py": 4,
    "unit/runtime/test_idle_poller.py": 2,
    "unit/test_relay_thread.py": 2,
    "unit/wakeups/test_local_hub.py": 1,
    "unit/wakeups/test_redis_publisher.py": 2,
    "unit/wakeups/test_sqlite_data_version.py": 9,
}
"""How often a file still does. A number here may only become smaller."""


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_reaches_a_private_name(file: Path) -> None:
    found = [f"{line}: {name}" for line, name in private_names(ast.parse(file.read_text(encoding="utf-8")))]
    assert len(found) <= STILL.get(str(file.relative_to(TESTS)), 0), "\n".join(found)


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
        else:
            continue
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in own | PUBLIC:
                yield node.lineno, name


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
