"""Columns as they are stored, read without conversions: no value may hide the rows beside it.

SQLite keeps any value in any column, and servers have modes that keep dates which are none.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    RowMapping,
    Table,
    Text,
    literal,
    type_coerce,
)

from outbox.ids import ID_BYTES, JobId


def as_stored(column: Column[Any]) -> ColumnElement[Any]:
    """The column as the driver returns it."""
    return type_coerce(column, Text).label(column.name)


def all_as_stored(table: Table, names: Collection[str]) -> list[ColumnElement[Any]]:
    """Those columns of ``table`` that are among ``names``."""
    return [as_stored(column) for column in table.c if column.name in names]


def values(
    table: Table, row: Mapping[str, Any] | RowMapping, parse_timestamp: Callable[[Any], datetime]
) -> dict[str, Any]:
    """The columns of ``table`` that ``row`` has, by name, each as its type says: bytes, text, number or aware datetime.
    NULL is None in a column that may be NULL."""
    found: dict[str, Any] = {}
    for column in table.c:
        if column.name in row:
            value = row[column.name]
            kind = column.type
            if (value is None and column.nullable) or isinstance(kind, LargeBinary):
                found[column.name] = value
            elif isinstance(kind, DateTime):
                found[column.name] = parse_timestamp(value)
            elif isinstance(kind, Float):
                found[column.name] = seconds(value) or 0.0
            else:
                found[column.name] = number(value) if isinstance(kind, Integer) else text(value)
    return found


class Selection:
    """The columns of a SELECT that is written as text, and the named tuple of its rows."""

    def __init__(self, expressions: Mapping[str, str]) -> None:
        """``expressions`` are SQL, by the name that each value has in a row."""
        self._expressions = expressions
        self.sql = ", ".join(expressions.values())
        named_tuple: Any = namedtuple  # noqa: PYI024 - no type checker knows fields that are not written out
        self._make = named_tuple("Row", expressions)._make

    def also(self, **expressions: str) -> Selection:
        """This selection with more columns at its end."""
        return Selection({**self._expressions, **expressions})

    def rows(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        return list(map(self._make, rows))


def value_as_stored(value: Any) -> ColumnElement[Any]:
    """A value that was read so, as a parameter."""
    # With no type at all, it would get that of the column that it is compared with.
    return literal(value, Text())


def job_id(value: Any) -> JobId | None:
    """None for what is no id: no command could name its row."""
    is_id = isinstance(value, bytes | bytearray) and len(value) == ID_BYTES
    return JobId(bytes=bytes(value)) if is_id else None


def text(value: Any) -> str:
    """The value as text. NULL is empty; bytes that are not UTF-8 stay as surrogates until they are shown."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def is_utf8(value: str) -> bool:
    """Whether a text can be sent as one. SQLite takes any bytes for a text, and `sqlite3` reads some as surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(value: Any) -> int:
    """0 for what is no number."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def seconds(value: Any) -> float | None:
    """None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
