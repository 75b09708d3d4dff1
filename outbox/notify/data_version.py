"""Wake-ups between processes on one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from outbox.notify.base import Wake
from outbox.notify.polling import Polling

_TICK = 0.02
"""Seconds between two readings of the version: 4 microseconds each, no lock, no page but the first."""


class DataVersion(Polling):
    """Reads `PRAGMA data_version <https://sqlite.org/pragma.html#pragma_data_version>`_ while it is waited for: it
    changes when another connection has committed, whatever it has committed. A busy worker reads nothing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, url: URL) -> DataVersion | None:
        """None for a database that is in no file of its own: nobody else can write to it."""
        if url.database in {None, "", ":memory:"} or url.query.get("uri"):
            return None
        return cls(Path(url.database).resolve())

    async def wait(self, seconds: float) -> Wake:
        self._tick(asyncio.get_running_loop())
        try:
            return await super().wait(seconds)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def clear(self) -> Wake:
        self._seen = self._read()
        return super().clear()

    def close(self) -> None:
        super().close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        version = self._read()
        if version is not None and version != self._seen:
            self._seen = version
            self.wake(Wake.MAYBE)
        self._timer = loop.call_later(_TICK, self._tick, loop)

    def _read(self) -> int | None:
        # The file may not be there yet, or be locked for a moment by who recovers it. The next tick sees it.
        with suppress(sqlite3.Error):
            if self._connection is None:
                # Without waiting for locks, and without creating what is not there.
                where = f"{self._path.as_uri()}?mode=rw"
                # Used from two threads, but never at once.
                self._connection = sqlite3.connect(where, uri=True, timeout=0, check_same_thread=False)
            row = self._connection.execute("PRAGMA data_version").fetchone()
            return int(row[0])
        return None
