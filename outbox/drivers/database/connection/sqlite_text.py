"""Texts of SQLite that are no UTF-8. SQLite takes any bytes for a text, and other programs write some.

They are read with a surrogate for each byte that is none, and Python's module refuses to send a surrogate back. So no
command could ask again for a row that it found by such a text, nor for the rows beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from outbox.drivers.database.raw_columns import is_utf8

_MARK = "?"
_AS_TEXT = "CAST(? AS TEXT)"


class AnyTextConnection(sqlite3.Connection):
    """Sends surrogates as the bytes that they stand for."""

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or AnyTextCursor)

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(statement, parameters)
        except UnicodeEncodeError:
            return super().execute(*_with_bytes(statement, parameters))


class AnyTextCursor(sqlite3.Cursor):
    def execute(self, statement: str, parameters: Any = (), /) -> AnyTextCursor:
        try:
            super().execute(statement, parameters)
        except UnicodeEncodeError:
            super().execute(*_with_bytes(statement, parameters))
        return self


def _with_bytes(statement: str, parameters: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    parts = statement.split(_MARK)
    if len(parts) != len(parameters) + 1:
        raise UnicodeEncodeError("utf-8", "", 0, 0, "a statement with other marks than its parameters")
    marks, values = [], []
    for value in parameters:
        is_text = not isinstance(value, str) or is_utf8(value)
        marks.append(_MARK if is_text else _AS_TEXT)
        values.append(value if is_text else value.encode("utf-8", "surrogateescape"))
    joined = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
    return joined, tuple(values)
