"""One source of wake-ups for all worker processes of a supervisor.

A server sends its binary log once for each client, and each client has to read all of it. So the supervisor reads it
once and passes on which queues got jobs, over a socket pair per process. It opens the log at the first request, because
only a worker knows whether it needs one.

Messages are JSON, one per packet. If the buffer of a process is full, messages to it are dropped: the process is busy
or frozen, and polls afterwards.

================================================= ====================================================================
``{"follow": connection}``                        request of a process
``{"connection": name, "source": text}``          response: the name of the source
``{"connection": name, "unavailable": text}``     response: why the process has to poll
``{"connection": name, "queues": [name, …]}``     jobs were committed; an empty list stands for every queue
``{"connection": name, "error": text or null}``   the source lost its connection; null: it is connected again
================================================= ====================================================================
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from outbox.wakeups.base import Report, Unavailable, WakeupListener, WakeupSource

DESCRIPTOR = "OUTBOX_WAKEUPS_FD"
"""The environment variable with the descriptor of a process's socket."""

# Both keep packets apart. Only the first reports that the other end is closed, and macOS does not have it.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
_LARGEST_PACKET = 65_536
_MOST_QUEUES = 500
"""Names in one message. More than these are sent as "every queue"."""

_EVERY_QUEUE = ""
RESPONSE_SECONDS = 10.0
"""For which a process waits for an answer of its supervisor."""

OpenSource = Callable[[str, WakeupListener, Report], WakeupSource]
"""Opens the source of a connection.

Raises:
    Unavailable: it has none.
"""


class FanoutServer:
    """The supervisor's end."""

    def __init__(self, open_source: OpenSource) -> None:
        self._open_source = open_source
        self._sources: dict[str, _SharedSource] = {}
        self._sockets: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self) -> socket.socket:
        """Returns the socket of a process that is about to be started. The caller closes it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, _KIND)
        ours.setblocking(False)
        self._sockets.add(ours)
        asyncio.get_running_loop().add_reader(ours, self._receive, ours)
        return theirs

    async def stop(self) -> None:
        for source in self._sources.values():
            await source.source.stop()
        for task in self._tasks:
            task.cancel()
        for ours in list(self._sockets):
            self._disconnect(ours)

    def _receive(self, ours: socket.socket) -> None:
        for message in _received(ours):
            if message is None:
                self._disconnect(ours)
                return
            task = asyncio.create_task(self._follow(str(message.get("follow")), ours))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self, connection: str, ours: socket.socket) -> None:
        try:
            shared = self._sources.get(connection)
            if shared is None:
                shared = self._sources[connection] = _SharedSource(connection, self._open_source)
            name = await shared.source.start()
        except Unavailable as error:
            # Opened again for the next request: the missing privilege may have been granted meanwhile.
            self._sources.pop(connection, None)
            _send(ours, {"connection": connection, "unavailable": str(error)})
        else:
            shared.sockets.add(ours)
            _send(ours, {"connection": connection, "source": name})

    def _disconnect(self, ours: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(ours)
        self._sockets.discard(ours)
        for source in self._sources.values():
            source.sockets.discard(ours)
        ours.close()


class _SharedSource:
    """The source of one connection, and the sockets of the processes that follow it."""

    def __init__(self, connection: str, open_source: OpenSource) -> None:
        self.sockets: set[socket.socket] = set()
        self.source = open_source(connection, self, self._report)
        self._connection = connection
        self._pending: set[str] = set()

    def notify(self, queues: Collection[str]) -> None:
        if not self._pending:
            # One message for all the events of one read.
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.update(queues or {_EVERY_QUEUE})

    def notify_all(self) -> None:
        self.notify(())

    def _flush(self) -> None:
        queues, self._pending = self._pending, set()
        every = _EVERY_QUEUE in queues or len(queues) > _MOST_QUEUES
        self._broadcast({"connection": self._connection, "queues": [] if every else sorted(queues)})

    def _report(self, error: str | None) -> None:
        self._broadcast({"connection": self._connection, "error": error})

    def _broadcast(self, message: dict[str, Any]) -> None:
        for each in self.sockets:
            _send(each, message)


class FanoutClient:
    """A worker process's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._sources: dict[str, _FanoutSource] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def take(cls) -> FanoutClient | None:
        """Remove the descriptor from the environment, which processes started by jobs inherit. None if there is no
        supervisor."""
        value = os.environ.pop(DESCRIPTOR, None)
        if value is None:
            return None
        os.set_inheritable(int(value), False)
        return cls(int(value))

    def source(self, connection: str, listener: WakeupListener, report: Report) -> WakeupSource:
        return _FanoutSource(self, connection, listener, report)

    def follow(self, source: _FanoutSource) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._receive)
        self._sources[source.connection] = source
        _send(self._socket, {"follow": source.connection})

    def unfollow(self, source: _FanoutSource) -> None:
        self._sources.pop(source.connection, None)

    def close(self) -> None:
        """Idempotent."""
        if self._loop is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for message in _received(self._socket):
            if message is None:
                self.close()
                return
            source = self._sources.get(str(message.get("connection")))
            if source is not None:
                source.receive(message)


class _FanoutSource:
    """A `outbox.wakeups.base.WakeupSource`."""

    def __init__(self, client: FanoutClient, connection: str, listener: WakeupListener, report: Report) -> None:
        self.connection = connection
        self._client = client
        self._listener = listener
        self._report = report
        self._response: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> str:
        self._client.follow(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(RESPONSE_SECONDS):
                return await asyncio.shield(self._response)
        return "the supervisor, which does not answer yet"

    async def stop(self) -> None:
        self._client.unfollow(self)

    def receive(self, message: dict[str, Any]) -> None:
        match message:
            case {"queues": []}:
                self._listener.notify_all()
            case {"queues": queues}:
                self._listener.notify(queues)
            case {"error": error}:
                self._report(error)
            case {"source": name} if not self._response.done():
                self._response.set_result(name)
            case {"unavailable": reason} if not self._response.done():
                self._response.set_exception(Unavailable(reason))


def _send(to: socket.socket, message: dict[str, Any]) -> None:
    # The buffer is full, or the other end is closed.
    with suppress(OSError):
        to.send(json.dumps(message).encode())


def _received(ours: socket.socket) -> list[dict[str, Any] | None]:
    """The messages in the buffer, followed by None if the other end is closed."""
    messages: list[dict[str, Any] | None] = []
    while True:
        try:
            data = ours.recv(_LARGEST_PACKET)
        except BlockingIOError:
            return messages
        except OSError:
            data = b""
        if not data:
            return [*messages, None]
        messages.append(json.loads(data))
