"""One source of wake-ups for all processes under a supervisor.

A binary log is a stream that the server sends once for each client, and that each client has to read. So the
supervisor reads it, and tells its processes which queues got jobs, over a pair of sockets for each of them. It begins
when the first process asks, because only a worker knows whether it wants it.

Messages are JSON, one in each packet. Those that a process has no room for are dropped: it is busy, or frozen, and
looks for work by itself.

============================================ =========================================================================
``{"follow": connection}``                   a process asks
``{"of": connection, "name": text}``         it is told what it listens to, or
``{"of": connection, "unavailable": text}``  why it has to poll
``{"of": connection, "ring": [queue, …]}``   jobs were committed; without names, something may have been
``{"of": connection, "report": text}``       nothing is heard at the moment; with null, it is again
============================================ =========================================================================
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

from outbox.wakeups.base import Report, Source, Unavailable, WakeupListener

LINE = "OUTBOX_WAKEUPS_LINE"
"""The environment variable in which a process finds the descriptor of its socket."""

# Both keep messages apart. Only the first says when the other end is gone, and macOS does not have it.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
_LARGEST = 65_536
_MOST = 500
"""Names in one message. With more, everybody looks."""

_ANSWER_SECONDS = 10.0

OpenSource = Callable[[str, WakeupListener, Report], Source]
"""Makes the source of a connection's wake-ups.

Raises:
    Unavailable: there is none.
"""


class FanoutServer:
    """The supervisor's side."""

    def __init__(self, open_source: OpenSource) -> None:
        self._open_source = open_source
        self._followed: dict[str, _Followed] = {}
        self._sockets: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def line(self) -> socket.socket:
        """The socket for a process that is about to be started, which then belongs to the caller."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, _KIND)
        ours.setblocking(False)
        self._sockets.add(ours)
        asyncio.get_running_loop().add_reader(ours, self._hear, ours)
        return theirs

    async def stop(self) -> None:
        for followed in self._followed.values():
            await followed.source.stop()
        for task in self._tasks:
            task.cancel()
        for ours in list(self._sockets):
            self._hang_up(ours)

    def _hear(self, ours: socket.socket) -> None:
        for message in _received(ours):
            if message is None:
                self._hang_up(ours)
                return
            task = asyncio.create_task(self._follow(str(message.get("follow")), ours))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self, connection: str, ours: socket.socket) -> None:
        try:
            followed = self._followed.get(connection)
            if followed is None:
                followed = self._followed[connection] = _Followed(connection, self._open_source)
            name = await followed.started()
        except Unavailable as error:
            # Asked again, it may be there: somebody has granted what was missing, and started a process anew.
            self._followed.pop(connection, None)
            _send(ours, {"of": connection, "unavailable": str(error)})
        else:
            followed.lines.add(ours)
            _send(ours, {"of": connection, "name": name})

    def _hang_up(self, ours: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(ours)
        self._sockets.discard(ours)
        for followed in self._followed.values():
            followed.lines.discard(ours)
        ours.close()


class _Followed:
    """One connection's source, and who hears of it."""

    def __init__(self, connection: str, open_source: OpenSource) -> None:
        self.lines: set[socket.socket] = set()
        self.source = open_source(connection, self, self._report)
        self._connection = connection
        self._starting: asyncio.Task[str] | None = None
        self._rung: set[str] | None = None
        self._everybody = False

    async def started(self) -> str:
        """
        Raises:
            Unavailable: there is nothing to hear.
        """
        if self._starting is None:
            self._starting = asyncio.create_task(self.source.start())
        return await asyncio.shield(self._starting)

    def notify(self, queues: Collection[str]) -> None:
        if self._rung is None:
            # What one reading of the log has brought is told in one message.
            self._rung = set()
            asyncio.get_running_loop().call_soon(self._flush)
        self._rung.update(queues)
        self._everybody |= not queues

    def notify_all(self) -> None:
        self.notify(())

    def _flush(self) -> None:
        queues, everybody = self._rung or (), self._everybody
        self._rung, self._everybody = None, False
        self._tell({"of": self._connection, "ring": sorted(queues) if len(queues) <= _MOST and not everybody else []})

    def _report(self, text: str | None) -> None:
        self._tell({"of": self._connection, "report": text})

    def _tell(self, message: dict[str, Any]) -> None:
        for line in self.lines:
            _send(line, message)


class FanoutClient:
    """A process's side."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._followed: dict[str, _Following] = {}

    @classmethod
    def take(cls) -> FanoutClient | None:
        """Find it in the environment, and remove it there: it is not for processes that a job starts."""
        value = os.environ.pop(LINE, None)
        if value is None:
            return None
        os.set_inheritable(int(value), False)
        return cls(int(value))

    def follow(self, connection: str, bells: WakeupListener, report: Report) -> Source:
        return _Following(self, connection, bells, report)

    def close(self) -> None:
        """Harmless when repeated."""
        if self._followed:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._followed.clear()
        self._socket.close()

    def ask(self, following: _Following) -> None:
        if not self._followed:
            asyncio.get_running_loop().add_reader(self._socket, self._hear)
        self._followed[following.connection] = following
        _send(self._socket, {"follow": following.connection})

    def end(self, following: _Following) -> None:
        if self._followed.pop(following.connection, None) is not None and not self._followed:
            asyncio.get_running_loop().remove_reader(self._socket)

    def _hear(self) -> None:
        for message in _received(self._socket):
            if message is None:
                asyncio.get_running_loop().remove_reader(self._socket)
                return
            following = self._followed.get(str(message.get("of")))
            if following is not None:
                following.hear(message)


class _Following:
    """A `outbox.wakeups.base.Source`."""

    def __init__(self, line: FanoutClient, connection: str, bells: WakeupListener, report: Report) -> None:
        self.connection = connection
        self._line = line
        self._bells = bells
        self._report = report
        self._answer: asyncio.Future[str] | None = None

    async def start(self) -> str:
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._line.ask(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(self._answer)
        return "the supervisor, which does not answer yet"

    async def stop(self) -> None:
        self._line.end(self)

    def hear(self, message: dict[str, Any]) -> None:
        if message.get("ring"):
            self._bells.notify(message["ring"])
        elif "ring" in message:
            self._bells.notify_all()
        elif "report" in message:
            self._report(message["report"])
        elif self._answer is not None and not self._answer.done():
            if "unavailable" in message:
                self._answer.set_exception(Unavailable(message["unavailable"]))
            else:
                self._answer.set_result(message["name"])


def _send(line: socket.socket, message: dict[str, Any]) -> None:
    # No room, or nobody at the other end any more.
    with suppress(OSError):
        line.send(json.dumps(message).encode())


def _received(line: socket.socket) -> list[dict[str, Any] | None]:
    """What has come; a None at the end when nothing will come any more."""
    messages: list[dict[str, Any] | None] = []
    while True:
        try:
            data = line.recv(_LARGEST)
        except BlockingIOError:
            return messages
        except OSError:
            data = b""
        if not data:
            return [*messages, None]
        messages.append(json.loads(data))
