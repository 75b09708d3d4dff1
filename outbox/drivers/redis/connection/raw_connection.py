"""Connections that redis-py opens, used without its client.

redis-py opens the connection (TLS, authentication, Sentinel). Scripts, subscriptions and messages then use the socket
directly: redis-py spends several coroutines on each command, and more time than the server (decision 11).
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis import exceptions

from outbox.drivers.redis.connection.guarded import abandon, connection_failures
from outbox.loop_cleanup import drop_transport

# The classes that redis-py has for them. Other errors are recognised by their words: `errors.py`.
_ERRORS = {
    "NOSCRIPT": exceptions.NoScriptError,
    "READONLY": exceptions.ReadOnlyError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
}


def pack(words: Iterable[bytes | str | float]) -> bytes:
    """A command as it is sent."""
    parts = [b""]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    parts[0] = b"*%d\r\n" % (len(parts) - 1)
    return b"".join(parts)


class Answers:
    """What the bytes of a server say: bytes, integers, lists, None, and errors as exceptions."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=_error)

    def feed(self, data: bytes) -> list[Any]:
        """The answers that this ``data`` completes.

        Raises:
            redis.exceptions.InvalidResponse: it is not what a Redis says.
        """
        complete: list[Any] = []
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                complete.append(answer)
        except hiredis.ProtocolError:
            raise exceptions.InvalidResponse(f"{data[:60]!r} is not what a Redis says") from None
        return complete


def _error(text: str) -> exceptions.RedisError:
    kind = _ERRORS.get(text.partition(" ")[0], exceptions.ResponseError)
    return kind(text.removeprefix("ERR "))


class RawConnection(asyncio.Protocol):
    """One connection, taken over from redis-py."""

    def __init__(self, connection: Any) -> None:
        """``connection`` is one of redis-py's, connected, and nothing of what it was sent is unanswered."""
        # Until it is taken over, redis-py handles its end.
        self.closed = True
        # redis-py closes the connection when its objects are collected.
        self._connection = connection
        self._answers = Answers()
        with connection_failures():
            # No other way leads to what redis-py has connected.
            reader, self._transport = self._connection._reader, self._connection._writer.transport  # noqa: SLF001
            self._before: Any = self._transport.get_protocol()
            self._transport.set_protocol(self)
            # What the reader was told before that is told once only.
            if self._transport.is_closing() or reader._eof or reader._buffer:  # noqa: SLF001
                raise exceptions.ConnectionError("the server closed the connection when it was made")
        self.closed = False

    @abstractmethod
    def received(self, answers: list[Any]) -> None:
        """Called with complete answers."""

    @abstractmethod
    def lost(self, error: Exception) -> None:
        """Called when the server or the network has ended the connection."""

    def say(self, data: bytes) -> None:
        """
        Raises:
            redis.exceptions.ConnectionError: the connection is gone.
        """
        with connection_failures():
            self._transport.write(data)

    async def close(self) -> None:
        """Close it, even during a call. Harmless when repeated."""
        self.closed = True
        await abandon(self._connection)

    def drop(self) -> None:
        """Close it without its event loop, which is closed."""
        self.closed = True
        drop_transport(self._transport)
        _forget_streams(self._connection)

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._answers.feed(data)
            if answers:
                self.received(answers)
        except Exception as error:  # noqa: BLE001 - an event loop would print it, and close the connection as well
            self._end(f"{type(error).__name__}: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        # The stream whose connection this was is used no more.
        with suppress(Exception):
            self._before.connection_lost(error)
        self._end(str(error) if error else "Connection closed by server.")

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            with suppress(Exception):
                self._transport.abort()
            self.lost(exceptions.ConnectionError(reason))


def drop_client(client: Any) -> None:
    """Close the connections of a client of redis-py without its event loop, which is closed. Never raises."""
    nodes = getattr(client, "nodes_manager", None)
    pools = [client.connection_pool] if nodes is None else list(nodes.nodes_cache.values())
    for pool in pools:
        for name in ("_available_connections", "_in_use_connections", "_connections"):
            for connection in list(getattr(pool, name, ())):
                writer = getattr(connection, "_writer", None)
                if writer is not None:
                    drop_transport(writer.transport)
                    _forget_streams(connection)
    if nodes is not None:
        client._initialize = True  # noqa: SLF001 - or it warns that it was not closed


def _forget_streams(connection: Any) -> None:
    """redis-py would warn that the connection was not closed."""
    connection._reader = connection._writer = None  # noqa: SLF001 - as its own `disconnect` leaves them


class Exchange(RawConnection):
    """Sends commands, one batch at a time."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._seconds: float | None = connection.socket_timeout
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._so_far: list[Any] = []
        self._wanted = 0

    async def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers to ``commands``, errors among them. After an exception, being cancelled included, it is unknown
        what will still be answered, and the connection is of no more use.

        Raises:
            redis.exceptions.ConnectionError: it is gone.
            redis.exceptions.TimeoutError: the server has not answered in time.
        """
        waiter: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiter = waiter
        self._so_far, self._wanted = [], len(commands)
        self.say(b"".join([pack(words) for words in commands]))
        timer = None if self._seconds is None else self._loop.call_later(self._seconds, self._too_late)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def received(self, answers: list[Any]) -> None:
        self._so_far += answers
        if len(self._so_far) > self._wanted:
            raise exceptions.InvalidResponse("the server says more than it was asked")
        if len(self._so_far) == self._wanted and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._so_far)

    def lost(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _too_late(self) -> None:
        self.lost(exceptions.TimeoutError(f"no answer for {self._seconds:g} s"))
