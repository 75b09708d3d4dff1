"""The connections that engines have opened, for when their event loop is closed and nothing can be awaited on it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.loop_cleanup import drop_transport

THREAD_SECONDS = 1.0
"""For which `OpenedConnections.drop` waits until the thread of a connection to SQLite has closed its file."""


class OpenedConnections:
    """Knows, weakly, every connection that one of ``engines`` has opened."""

    def __init__(self, *engines: AsyncEngine) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        for pool in {engine.sync_engine.pool for engine in engines}:
            event.listen(pool, "connect", self._add)

    def _add(self, connection: Any, _record: object) -> None:
        self._connections.add(connection.driver_connection)

    def drop(self) -> None:
        """Close them all without their event loop. Never raises."""
        connections, self._connections = list(self._connections), WeakSet()
        for connection in connections:
            with suppress(Exception):
                (_drop_file if hasattr(connection, "_tx") else _drop_socket)(connection)


def _drop_file(connection: Any) -> None:
    """aiosqlite's thread closes the file and ends."""
    thread = getattr(connection, "_thread", connection)
    if hasattr(connection, "stop"):
        connection.stop()
    else:
        from aiosqlite.core import _STOP_RUNNING_SENTINEL  # before 0.22

        connection._conn.close()  # noqa: SLF001 - only public calls that need a loop do this
        connection._connection = None  # noqa: SLF001 - or it warns that it was not closed
        connection._tx.put_nowait(_STOP_RUNNING_SENTINEL)  # noqa: SLF001 - as above
    thread.join(THREAD_SECONDS)


def _drop_socket(connection: Any) -> None:
    writer = getattr(connection, "_writer", None)
    transport = getattr(connection, "_transport", None) or getattr(writer, "transport", None)
    if transport is not None:
        drop_transport(transport)
    # It would close the transport once more, which its loop refuses.
    with suppress(AttributeError):
        connection._connected = False  # noqa: SLF001 - as its own `close` leaves it
