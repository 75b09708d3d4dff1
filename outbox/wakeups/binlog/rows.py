"""Reads from events of a binary log which queues got jobs, and passes over everything else as cheaply as it can.

asyncmy's own parser makes Python values of every column of every row, JSON documents included, for which it needs the
server's description of the table and a second connection. All that is wanted here is one short string of each row.
"""

from __future__ import annotations

from collections.abc import Iterator

from outbox.wakeups.binlog.columns import Column, Unreadable, columns

QUERY, TABLE_MAP = 0x02, 0x13
_WRITE_ROWS = {0x17: False, 0x1E: True}
"""Rows inserted, and whether the event has extra data before them: version 1 is MariaDB's, version 2 MySQL's."""
_WRITE_ROWS_COMPRESSED = 0xA6
"""MariaDB with ``log_bin_compress``."""

_TYPE = 5
_HEADER = 20
"""The byte that says that no error follows, and the 19 of the event's header."""
_CHECKSUM = 4
_TABLE = b"queue_jobs"

EVERY_QUEUE: frozenset[str] = frozenset()
"""Some queue got jobs, and the event does not tell which."""


_Layout = tuple[Column, ...]


class JobRows:
    """Keeps in mind which table ids are `queue_jobs` of one schema. ``queue_column`` counts from 0."""

    def __init__(self, schema: str, queue_column: int, *, checksums: bool) -> None:
        name = schema.lower().encode()
        self._schema = name
        self._prefix = bytes([len(name)]) + name + b"\0" + bytes([len(_TABLE)]) + _TABLE + b"\0"
        self._queue_column = queue_column
        self._checksum = _CHECKSUM if checksums else 0
        self._layouts: dict[bytes, _Layout | None] = {}

    def queues(self, event: bytes) -> frozenset[str] | None:
        """The queues that this event put jobs into; None for one that is about something else."""
        kind = event[_TYPE]
        if kind == TABLE_MAP:
            self._map(event)
        elif kind in _WRITE_ROWS:
            table = event[_HEADER : _HEADER + 6]
            if table in self._layouts:
                return self._inserted(event, self._layouts[table], has_extra=_WRITE_ROWS[kind])
        elif kind == _WRITE_ROWS_COMPRESSED:
            return EVERY_QUEUE if event[_HEADER : _HEADER + 6] in self._layouts else None
        elif kind == QUERY and _TABLE in event and b"INSERT" in event.upper():
            # What binlog_format MIXED or STATEMENT logs.
            return EVERY_QUEUE if self._schema in event.lower() else None
        return None

    def _map(self, event: bytes) -> None:
        table, start = event[_HEADER : _HEADER + 6], _HEADER + 8
        end = start + len(self._prefix)
        # MySQL on a system that ignores case writes names as it likes.
        if event[start:end].lower() != self._prefix:
            self._layouts.pop(table, None)
        elif table not in self._layouts:
            self._layouts[table] = _layout(event, end)

    def _inserted(self, event: bytes, layout: _Layout | None, *, has_extra: bool) -> frozenset[str]:
        try:
            if layout is None:
                return EVERY_QUEUE
            start = _HEADER + 8
            if has_extra:
                start += int.from_bytes(event[start : start + 2], "little")
            rows = event[start : len(event) - self._checksum]
            return frozenset(self._read(rows, layout))
        except (IndexError, UnicodeDecodeError, Unreadable):
            return EVERY_QUEUE

    def _read(self, rows: bytes, layout: _Layout) -> Iterator[str]:
        count, position = _packed_integer(rows, 0)
        if count != len(layout):
            raise Unreadable(f"{count} columns instead of {len(layout)}")
        size = (count + 7) // 8
        # With binlog_row_image=MINIMAL, columns that no value was given for are not there at all.
        present = [column for column in range(count) if _bit(rows, position, column)]
        position += size
        nulls = (len(present) + 7) // 8
        while position < len(rows):
            null_bits = position
            position += nulls
            for index, column in enumerate(present):
                if _bit(rows, null_bits, index):
                    continue
                end = layout[column].end(rows, position)
                if column == self._queue_column:
                    yield rows[position + layout[column].length : end].decode("ascii")
                position = end


def _layout(event: bytes, position: int) -> _Layout | None:
    """What a table map says of the columns; None where it is none that can be read."""
    count, position = _packed_integer(event, position)
    types = event[position : position + count]
    size, position = _packed_integer(event, position + count)
    try:
        return columns(types, event[position : position + size])
    except (Unreadable, IndexError):
        return None


def _packed_integer(data: bytes, position: int) -> tuple[int, int]:
    first = data[position]
    if first < 251:
        return first, position + 1
    end = position + 1 + {252: 2, 253: 3, 254: 8}[first]
    return int.from_bytes(data[position + 1 : end], "little"), end


def _bit(data: bytes, position: int, index: int) -> int:
    return data[position + index // 8] & (1 << (index % 8))
