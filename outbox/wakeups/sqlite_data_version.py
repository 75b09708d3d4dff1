"""Detects commits that other processes make to a SQLite file."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from outbox.wakeups.base import Wake
from outbox.wakeups.polling import Polling
from outbox.wakeups.sqlite_file_changes import FileChanges

TICK = 0.02
"""Seconds between two wake-ups, however often others commit. Without notifications of the kernel, also the seconds
between two reads of the version, which take 4 microseconds, no lock, and only the first page."""

_STEP = 0.001
"""Seconds between two reads after the file was written to. A commit is visible as soon as it is on disk."""

_QUICK_STEPS, _STEPS = 50, 100
"""Reads after the file was written to, first every `_STEP`, then every `TICK`: about a second in all. A longer
transaction writes again when it commits."""


class DataVersion(Polling):
    """Reads `PRAGMA data_version <https://sqlite.org/pragma.html#pragma_data_version>`_ during a wait.

    The version changes with every commit of another connection. A busy worker does not read it. An idle one reads it
    only after the kernel has reported a write to the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._changes: FileChanges | None = None
        self._asked_kernel = False
        self._seen: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None
        self._steps = 0
        self._changed = False
        """A commit was seen, and the wait has not ended for it yet."""
        self._woken = -math.inf

    @classmethod
    def of(cls, url: URL) -> DataVersion | None:
        """None for a database in memory: other processes cannot write to it."""
        if url.database in {None, "", ":memory:"} or url.query.get("uri"):
            return None
        return cls(Path(url.database).resolve())

    @property
    def listening(self) -> bool:
        """Whether a wait leaves it to the kernel to report the next write, and reads nothing meanwhile."""
        return self._watched is not None

    async def wait(self, seconds: float) -> Wake:
        loop = asyncio.get_running_loop()
        self._tick(loop)
        try:
            return await super().wait(seconds)
        finally:
            self._stop(loop)

    def clear(self) -> Wake:
        self._has_changed()
        self._changed = False
        return super().clear()

    def close(self) -> None:
        super().close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._close_changes()

    def _written(self, loop: asyncio.AbstractEventLoop) -> None:
        """The file was written to. Notifications are ignored while the version is read often."""
        self._stop(loop)
        self._tick(loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._changed |= self._has_changed()
        pause = self._woken + TICK - loop.time()
        if self._changed and pause <= 0:
            self._changed, self._woken = False, loop.time()
            self.wake(Wake.MAYBE)
        if self._changes is None or self._changed:
            self._timer = loop.call_later(min(TICK, max(_STEP, pause)), self._tick, loop)
        elif self._steps > 0:
            self._steps -= 1
            quick = self._steps >= _STEPS - _QUICK_STEPS
            self._timer = loop.call_later(_STEP if quick else TICK, self._tick, loop)
        else:
            self._timer, self._watched = None, self._changes.descriptor
            loop.add_reader(self._watched, self._written, loop)

    def _has_changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        written = self._changes is not None and self._changes.drain()
        if written:
            self._steps = _STEPS
        version = self._read()
        if version is None or version == self._seen:
            return False
        self._seen = version
        if not written:
            # The write is accounted for. If the file was written to again, another commit may be in progress.
            self._steps = 0
        if self._changes is not None:
            self._changes.committed()
            if self._changes.unreliable:
                self._close_changes()
        return True

    def _read(self) -> int | None:
        # The file may be missing, or locked during recovery. The next tick reads it.
        with suppress(sqlite3.Error):
            if self._connection is None:
                # Do not wait for locks, and do not create the file.
                where = f"{self._path.as_uri()}?mode=rw"
                # Used from two threads, never at the same time.
                self._connection = sqlite3.connect(where, uri=True, timeout=0, check_same_thread=False)
            if not self._asked_kernel:
                # The first read creates the write-ahead log, which this connection then keeps.
                _version(self._connection)
                self._asked_kernel = True
                self._changes = FileChanges.of(self._path)
            return _version(self._connection)
        return None

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watched is not None:
            loop.remove_reader(self._watched)
            self._watched = None

    def _close_changes(self) -> None:
        changes, self._changes = self._changes, None
        if changes is not None:
            changes.close()


def _version(connection: sqlite3.Connection) -> int:
    row = connection.execute("PRAGMA data_version").fetchone()
    return int(row[0])
