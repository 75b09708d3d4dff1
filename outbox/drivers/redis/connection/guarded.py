"""Connections of redis-py that fail in one way: with a `redis.exceptions.RedisError`.

redis-py translates an OSError. An event loop, a transport or redis-py itself raises other errors when a connection is
reset while it is made or used: uvloop a RuntimeError, redis-py an AttributeError or a TypeError. Its pools, its
sentinels and its cluster client look for its own errors only. After others they would neither close the connection nor
ask the next server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from outbox.errors import OutboxError


class NotConnected(exceptions.ConnectionError):
    """The connection could not be made: nothing of what it was wanted for has been carried out."""


@contextmanager
def connection_failures() -> Iterator[None]:
    """Turn what a transport, an event loop or redis-py raises into the error of a connection that is lost.

    Only code of theirs may run inside: an error of our own would be taken for an outage.

    Raises:
        redis.exceptions.ConnectionError: in place of an error that is neither redis-py's nor the operating system's.
    """
    try:
        yield
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError, EOFError, OutboxError):
        raise
    except Exception as error:
        said = str(error) or "no reason given"
        raise exceptions.ConnectionError(f"the connection failed ({type(error).__name__}: {said})") from error


async def abandon(connection: Any) -> None:
    """Close a connection of redis-py's, whatever state it is in. Harmless when repeated."""
    # What the transport raises is of no interest any more, and redis-py forgets the transport in any case.
    with suppress(Exception):
        connection._writer.transport.abort()  # noqa: SLF001 - waits for no peer, as closing TLS would
    with suppress(Exception):
        await connection.disconnect(nowait=True)


class _Guarded:
    """In front of one of redis-py's classes of connections."""

    async def connect(self, *args: Any, **options: Any) -> None:
        try:
            with connection_failures():
                await super().connect(*args, **options)  # type: ignore[misc]
        except BaseException:
            # redis-py closes it after its own errors only.
            await abandon(self)
            raise

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[misc]
        # Nothing awaits the end of the stream. asyncio prints an exception that is not retrieved.
        closed: asyncio.Future[None] | None = getattr(getattr(self._writer, "_protocol", None), "_closed", None)  # type: ignore[attr-defined]
        if closed is not None:
            closed.add_done_callback(_retrieve)

    async def send_packed_command(self, *args: Any, **options: Any) -> Any:
        with connection_failures():
            return await super().send_packed_command(*args, **options)  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        with connection_failures():
            return await super().read_response(*args, **options)  # type: ignore[misc]

    async def can_read_destructive(self, *args: Any, **options: Any) -> Any:
        with connection_failures():
            return await super().can_read_destructive(*args, **options)  # type: ignore[misc]

    async def disconnect(self, *args: Any, **options: Any) -> None:
        # A transport that is broken already may say so: it is closed all the same.
        with suppress(Exception):
            await super().disconnect(*args, **options)  # type: ignore[misc]


def _retrieve(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()


@cache
def guarded(kind: type[Any]) -> type[Any]:
    """``kind``, one of redis-py's classes of connections, with every failure as an error of redis-py's."""
    return type(f"Guarded{kind.__name__}", (_Guarded, kind), {})


def guard(client: Redis) -> Redis:
    """Let ``client``, and the sentinels that it asks, make guarded connections."""
    pool: Any = client.connection_pool
    pool.connection_class = guarded(pool.connection_class)
    for sentinel in sentinels_of(client):
        guard(sentinel)
    return client


def sentinels_of(client: Redis) -> list[Redis]:
    pool = client.connection_pool
    return list(pool.sentinel_manager.sentinels) if isinstance(pool, SentinelConnectionPool) else []


async def close_client(client: Redis) -> None:
    """Close ``client`` and the sentinels that it asks. Raises nothing, and is harmless when repeated."""
    for each in (client, *sentinels_of(client)):
        with suppress(Exception):
            await each.aclose()


class ClusterClient(RedisCluster):
    """redis-py's client for a cluster, of which nothing is left once it is closed.

    redis-py's own ``aclose`` returns at once after a command that has failed, because the next one would look for the
    nodes anew: the connections to all nodes stay open. Nor does it close those that commands under way make meanwhile.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: WeakSet[Any] = WeakSet()
        self._under_way = 0
        self._closed = False
        self._kind = guarded(self.connection_kwargs["connection_class"])
        for known in (self.connection_kwargs, self.nodes_manager.connection_kwargs):
            known["connection_class"] = self._connection
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = self._connection  # type: ignore[assignment]

    def _connection(self, **options: Any) -> Any:
        connection = self._kind(**options)
        self._made.add(connection)
        return connection

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """
        Raises:
            redis.exceptions.RedisError, redis.exceptions.RedisClusterException: there is no answer.
        """
        self._under_way += 1
        try:
            with connection_failures():
                return await super().execute_command(*words, **options)
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                await self._close_all()

    async def aclose(self) -> None:
        """Close every connection that was made, and once more when the last command that is under way has ended."""
        self._closed = True
        await self._close_all()

    async def _close_all(self) -> None:
        # Otherwise it would complain when it is collected.
        self._initialize = True
        await asyncio.gather(*(abandon(connection) for connection in list(self._made)))
