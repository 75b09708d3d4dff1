"""The size of a value in a row event, by the column type in the table map.

The formats are those of MySQL's `mysql::binlog::event::Table_map_event
<https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html>`_; MariaDB
has the same for these types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_FIXED = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 7: 4, 8: 8, 9: 3, 10: 3, 11: 3, 12: 8, 13: 1}
"""TINY, SHORT, LONG, FLOAT, DOUBLE, TIMESTAMP, LONGLONG, INT24, DATE, TIME, DATETIME, YEAR."""

_WITH_FRACTION = {17: 4, 18: 5, 19: 3}
"""TIMESTAMP2, DATETIME2, TIME2, without the fraction of a second."""

_VARCHAR, _VAR_STRING, _STRING = 15, 253, 254
_WITH_LENGTH = {245, 252, 255}
"""JSON, BLOB, GEOMETRY: the metadata holds the size of the length prefix."""

_METADATA = {
    4: 1, 5: 1, 15: 2, 16: 2, 17: 1, 18: 1, 19: 1, 245: 1, 246: 2, 247: 2, 248: 2, 252: 1, 253: 2, 254: 2, 255: 1,
}  # fmt: skip


class Unreadable(Exception):
    """The table has columns that outbox did not create, so its rows cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Column:
    """A value of ``fixed`` bytes, or one with a length prefix of ``length`` bytes."""

    fixed: int = 0
    length: int = 0

    def end(self, data: bytes, start: int) -> int:
        """The end of the value that begins at ``start``."""
        if not self.length:
            return start + self.fixed
        begin = start + self.length
        return begin + int.from_bytes(data[start:begin], "little")


def columns(types: bytes, metadata: bytes) -> tuple[Column, ...]:
    """
    Raises:
        Unreadable: no table of outbox has a column of this type.
    """
    return tuple(_column(kind, about) for kind, about in _described(types, metadata))


def _described(types: bytes, metadata: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    for kind in types:
        size = _METADATA.get(kind, 0)
        yield kind, metadata[position : position + size]
        position += size


def _column(kind: int, about: bytes) -> Column:
    if kind in _FIXED:
        return Column(fixed=_FIXED[kind])
    if kind in _WITH_FRACTION:
        return Column(fixed=_WITH_FRACTION[kind] + (about[0] + 1) // 2)
    if kind in _WITH_LENGTH:
        return Column(length=about[0])
    if kind in (_VARCHAR, _VAR_STRING):
        return Column(length=1 if int.from_bytes(about, "little") < 256 else 2)
    if kind == _STRING and about[0] | 0x30 == _STRING:
        # The type holds two bits of the maximum length, inverted.
        return Column(length=1 if not (about[0] & 0x30) ^ 0x30 else 2)
    raise Unreadable(f"column type {kind}")
