"""Columns as they are stored, read without conversions: no value may hide the rows beside it.

SQLite keeps any value in any column, and servers have modes that keep dates which are none.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, Text, literal, type_coerce

from outbox.ids import JobId

_ID_BYTES = 16


def as_stored(column: Column[Any]) -> ColumnElement[Any]:
    """The column as the driver returns it."""
    return type_coerce(column, Text).label(column.name)


def all_as_stored(table: Table) -> list[ColumnElement[Any]]:
    return [as_stored(column) for column in table.c]


def value_as_stored(value: Any) -> ColumnElement[Any]:
    """A value that was read so, as a parameter."""
    # With no type at all, it would get that of the column that it is compared with.
    return literal(value, Text())


def job_id(value: Any) -> JobId | None:
    """None for what is no id: no command could name its row."""
    is_id = isinstance(value, bytes | bytearray) and len(value) == _ID_BYTES
    return UUID(bytes=bytes(value)) if is_id else None


def text(value: Any) -> str:
    """Bytes that are not UTF-8 are escaped by whatever shows them; NULL is empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


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
