"""Connections that dispatches without a session keep for themselves.

To check a connection out of SQLAlchemy's pool and in again takes longer than all else that a dispatch does in this
process. So the pool opens these connections, and then they leave it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox import clock
from outbox.drivers.database.connection.raw_connection import RawConnection

T = TypeVar("T")
W = TypeVar("W", bound=RawConnection)


class DirectConnections(Generic[W]):
    """Connections to the database of ``engine``, opened when needed: as many as ``room`` lets in at once."""

    def __init__(
        self,
        engine: AsyncEngine,
        kind: Callable[[AsyncEngine], W],
        room: AbstractAsyncContextManager[Any],
        *,
        unused_seconds: float,
        oldest_seconds: float,
    ) -> None:
        """A connection is closed instead of used again after ``unused_seconds`` without use, and ``oldest_seconds``
        after it was opened."""
        self._engine = engine
        self._kind = kind
        self._room = room
        self._unused_seconds = unused_seconds
        self._oldest_seconds = oldest_seconds
        self._idle: list[tuple[W, float, float]] = []
        """Each with the moments of its opening and of its last use. The last one was used last."""

    async def run(self, work: Callable[[W], Awaitable[T]]) -> T:
        """Run ``work`` on a connection of its own. After an error that leaves the connection in doubt, it is closed."""
        async with self._room:
            connection, opened = await self._take()
            try:
                result = await work(connection)
            except BaseException as error:
                if await connection.recovered(error):
                    self._idle.append((connection, opened, clock.now()))
                    raise
                await connection.close()
                if isinstance(error, DBAPIError) and error.connection_invalidated:
                    # The others were most likely lost with it.
                    await self.close()
                raise
            self._idle.append((connection, opened, clock.now()))
            return result

    async def _take(self) -> tuple[W, float]:
        now = clock.now()
        while self._idle:
            connection, opened, used = self._idle.pop()
            if now - used < self._unused_seconds and now - opened < self._oldest_seconds:
                return connection, opened
            await connection.close()
        connection = self._kind(self._engine)
        await connection.open_alone()
        return connection, now

    async def close(self) -> None:
        """Close those that are idle. Harmless when repeated."""
        while self._idle:
            await self._idle.pop()[0].close()
