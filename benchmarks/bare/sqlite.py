"""The bare loop on SQLite. It calls the library where it is, on the event loop: nothing else runs there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from sqlalchemy import make_url

from benchmarks.bare.loop import Loop, Row
from benchmarks.job_counters import Counters

_NOW = "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
_UNTIL = "(strftime('%Y-%m-%d %H:%M:%f', 'now', '30 seconds') || '000')"
_SELECT = (
    "SELECT id, payload FROM queue_jobs WHERE queue = 'default' AND priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) "
    f"AND available_at <= {_NOW} ORDER BY priority, available_at LIMIT ?"
)
_RESERVE = (
    f"UPDATE queue_jobs SET reserved_by = ?, reserved_until = {_UNTIL}, available_at = {_UNTIL}, "
    "attempts = attempts + 1 WHERE id IN ({})"
)


def connect(url: str) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return, as those of outbox are."""
    connection = sqlite3.connect(make_url(url).database or "", isolation_level=None)
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class SQLiteLoop(Loop):
    def __init__(self, url: str, counters: Counters, *, batch: int, joined: bool) -> None:
        super().__init__(counters, batch=batch, joined=joined)
        self._connection = connect(url)

    async def connect(self) -> None:
        """It has been opened: that waits for nobody."""

    async def claim(self) -> Sequence[Row]:
        self._begin()
        rows: list[Row] = self._connection.execute(_SELECT, (self.batch,)).fetchall()
        if rows:
            marks = ", ".join("?" * len(rows))
            self._connection.execute(_RESERVE.format(marks), (os.urandom(16), *(row[0] for row in rows)))
        return rows

    async def delete(self, ids: Sequence[bytes]) -> None:
        self._begin()
        self._connection.execute(f"DELETE FROM queue_jobs WHERE id IN ({', '.join('?' * len(ids))})", ids)

    async def commit(self) -> None:
        self._connection.execute("COMMIT")

    async def close(self) -> None:
        self._connection.close()

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
