"""Reads from the events of a binary log which idle workers to wake, and skips everything else cheaply: the queues of
inserted jobs, new bulk operations, and pauses that have ended.

The parser of asyncmy converts every column of every row to Python values, JSON documents included. It also needs a
second connection for the table's definition. Here only one short string per row is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from outbox.wakeups.base import OPERATIONS, RESUMED
from outbox.wakeups.binlog.columns import Column, Unreadable, columns

QUERY, TABLE_MAP = 0x02, 0x13
_WRITE_ROWS = {0x17: False, 0x1E: True}
"""Inserted rows, and whether extra data precedes them. MariaDB writes version 1, MySQL version 2."""
_WRITE_ROWS_COMPRESSED = 0xA6
_DELETE_ROWS = {0x19, 0x20, 0xA8}
"""In the same versions, and as MariaDB compresses them, which it does with ``log_bin_compress``."""

_TYPE = 5
_HEADER = 20
"""The status byte of the packet, and the 19 bytes of the event's header."""
_CHECKSUM = 4
_TABLE, _OPERATIONS_TABLE = b"queue_jobs", b"queue_operations"
_PAUSE_TABLES = (b"queue_pauses", b"queue_paused_jobs")
"""A resume deletes a row of the first, or makes jobs claimable and deletes their rows of the second."""

EVERY_QUEUE: frozenset[str] = frozenset()
"""Jobs were inserted, and the event does not say into which queue."""


_Layout = tuple[Column, ...]
_NEW_OPERATION, _END_OF_PAUSE = frozenset({OPERATIONS}), frozenset({RESUMED})


class JobRows:
    """Remembers the table ids of one schema's tables. ``queue_column``, of `queue_jobs`, counts from 0."""

    def __init__(self, schema: str, queue_column: int, *, checksums: bool) -> None:
        name = schema.lower().encode()
        self._schema = name
        self._prefix, self._operations_prefix, *pauses = (
            bytes([len(name)]) + name + b"\0" + bytes([len(table)]) + table + b"\0"
            for table in (_TABLE, _OPERATIONS_TABLE, *_PAUSE_TABLES)
        )
        self._pause_prefixes = tuple(pauses)
        self._longest = max(map(len, (self._prefix, self._operations_prefix, *pauses)))
        self._queue_column = queue_column
        self._checksum = _CHECKSUM if checksums else 0
        self._layouts: dict[bytes, _Layout | None] = {}
        self._operations: set[bytes] = set()
        self._pauses: set[bytes] = set()

    def queues(self, event: bytes) -> frozenset[str] | None:
        """The queues of the jobs that this event inserted, or `OPERATIONS`, or `RESUMED`. None for other events."""
        kind = event[_TYPE]
        if kind == TABLE_MAP:
            self._map(event)
        elif kind in _WRITE_ROWS:
            table = event[_HEADER : _HEADER + 6]
            if table in self._layouts:
                return self._inserted(event, self._layouts[table], has_extra=_WRITE_ROWS[kind])
            return _NEW_OPERATION if table in self._operations else None
        elif kind == _WRITE_ROWS_COMPRESSED:
            table = event[_HEADER : _HEADER + 6]
            return EVERY_QUEUE if table in self._layouts else _NEW_OPERATION if table in self._operations else None
        elif kind in _DELETE_ROWS:
            return _END_OF_PAUSE if event[_HEADER : _HEADER + 6] in self._pauses else None
        elif kind == QUERY and (queues := _told_by_statement(event)) is not None:
            return queues if self._schema in event.lower() else None
        return None

    def _map(self, event: bytes) -> None:
        table, start = event[_HEADER : _HEADER + 6], _HEADER + 8
        # On a system that ignores case, MySQL writes names in either case.
        names = event[start : start + self._longest].lower()
        _note(self._operations, table, is_it=names.startswith(self._operations_prefix))
        _note(self._pauses, table, is_it=names.startswith(self._pause_prefixes))
        if not names.startswith(self._prefix):
            self._layouts.pop(table, None)
        elif table not in self._layouts:
            self._layouts[table] = _layout(event, start + len(self._prefix))

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
        # With binlog_row_image=MINIMAL, columns without a given value are missing.
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


def _note(tables: set[bytes], table: bytes, *, is_it: bool) -> None:
    (tables.add if is_it else tables.discard)(table)


def _told_by_statement(event: bytes) -> frozenset[str] | None:
    """Statements are logged where binlog_format is MIXED or STATEMENT."""
    if _TABLE in event and b"INSERT" in event.upper():
        return EVERY_QUEUE
    ends = any(table in event for table in _PAUSE_TABLES) and b"DELETE" in event.upper()
    return _END_OF_PAUSE if ends else None


def _layout(event: bytes, position: int) -> _Layout | None:
    """The columns of a table map. None if they cannot be parsed."""
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
