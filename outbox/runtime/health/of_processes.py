"""What the processes of a supervisor tell it about their health.

The supervisor has a socket pair with each process. For a question, it sends one end of another pair, on which the
process answers as its HTTP server would: a late answer to one question is never taken for that to the next. The other
way, the process writes one byte when it can answer, and its last metrics, compressed, when it stops.
"""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Protocol

from outbox.runtime.health.server import METRICS_TYPE, NO_METRICS, Response, Routes, answer, verdict
from outbox.runtime.process.worker_process import HEALTH_DESCRIPTOR

_ANSWER_WITHIN = 5.0
"""Seconds after which a process that does not answer is taken for one that is not alive."""

_HELLO = b"1"
_PAGE = 65_536


class MetricsPages(Protocol):
    """Makes one page of the metrics of several processes."""

    def add_up(self, pages: Sequence[str]) -> str: ...

    def keep(self, page: str) -> None:
        """The last page of a process that has ended: what it has counted is part of all later sums."""


class HealthOfProcesses:
    """The supervisor's end. Asked from any thread."""

    def __init__(self, count: int, pages: MetricsPages | None = None, answer_within: float = _ANSWER_WITHIN) -> None:
        self._count = count
        self._pages = pages
        self._answer_within = answer_within
        self._processes: dict[int, _Process] = {}
        self._counting = threading.Lock()
        """Held while a sum is made, and while a process leaves it: its last page would be in the sum twice."""

    def connect(self, index: int) -> socket.socket:
        """Returns the socket of the process of this number, which is about to be started. The caller closes it."""
        ours, theirs = socket.socketpair()
        self._processes[index] = _Process(ours)
        return theirs

    def disconnect(self, index: int) -> None:
        """The process has ended."""
        with self._counting:
            process = self._processes.pop(index, None)
            if process is not None:
                page = process.last_page()
                process.socket.close()
                if self._pages is not None and page is not None:
                    self._pages.keep(page)

    def routes(self) -> Routes:
        return {
            "/live": lambda: self._verdict("/live"),
            "/ready": lambda: self._verdict("/ready"),
            "/metrics": self._metrics,
        }

    def _verdict(self, path: str) -> Response:
        """Every process has to be well. One that is starting is alive, and not ready."""
        problems = [
            f"process {index}: {line}"
            for index in range(1, self._count + 1)
            for line in self._problems(index, path, starting=() if path == "/live" else ("it is starting",))
        ]
        return verdict(problems)

    def _problems(self, index: int, path: str, *, starting: tuple[str, ...]) -> tuple[str, ...]:
        process = self._processes.get(index)
        if process is None or not process.has_begun():
            return starting
        response = process.ask(path, self._answer_within)
        if response is None:
            # It may have ended meanwhile; then it is about to be replaced.
            alive = self._processes.get(index) is process
            return (f"it does not answer within {self._answer_within:g} s",) if alive else starting
        return () if response.status == HTTPStatus.OK else tuple(response.body.splitlines())

    def _metrics(self) -> Response:
        """What is read from the store is asked of one process only: it would be the same in all."""
        if self._pages is None:
            return NO_METRICS
        for process in list(self._processes.values()):
            if process.has_begun():
                response = process.ask("/metrics/process", self._answer_within)
                if response is not None and response.status == HTTPStatus.OK:
                    process.page = response.body
        of_store = self._of_store()
        with self._counting:
            pages = [process.page for process in self._processes.values() if process.page is not None]
            return Response(HTTPStatus.OK, self._pages.add_up([*pages, *of_store]), METRICS_TYPE)

    def _of_store(self) -> list[str]:
        """From the first process that answers."""
        for process in list(self._processes.values()):
            response = process.ask("/metrics/store", self._answer_within) if process.has_begun() else None
            if response is not None and response.status == HTTPStatus.OK:
                return [response.body]
        return []


class _Process:
    def __init__(self, control: socket.socket) -> None:
        self.socket = control
        self.page: str | None = None
        """The last metrics of the process."""
        self._lock = threading.Lock()

    def has_begun(self) -> bool:
        """Whether the process has got as far as to answer."""
        with suppress(OSError):
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == _HELLO
        return False

    def last_page(self) -> str | None:
        """That which the process has left behind; if it was killed, that of the last scrape."""
        left = b""
        with suppress(OSError):
            while more := self.socket.recv(_PAGE, socket.MSG_DONTWAIT):
                left += more
        try:
            return zlib.decompress(left.removeprefix(_HELLO)).decode()
        except (zlib.error, UnicodeDecodeError):
            return self.page

    def ask(self, path: str, within: float) -> Response | None:
        ours, theirs = socket.socketpair()
        connection = HTTPConnection("localhost", timeout=within)
        try:
            ours.settimeout(within)
            with theirs, self._lock:
                socket.send_fds(self.socket, [b"?"], [theirs.fileno()], flags=socket.MSG_DONTWAIT)
            connection.sock = ours
            connection.request("GET", path)
            response = connection.getresponse()
            return Response(response.status, response.read().decode())
        except (OSError, HTTPException, UnicodeDecodeError):
            return None
        finally:
            connection.close()
            ours.close()


class HealthOfProcess:
    """A worker process's end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    @classmethod
    def take(cls) -> HealthOfProcess | None:
        """Read it from the environment, and remove it there: processes that a job starts are not asked."""
        value = os.environ.pop(HEALTH_DESCRIPTOR, None)
        if value is None:
            return None
        os.set_inheritable(int(value), False)
        return cls(socket.socket(fileno=int(value)))

    def start(self, routes: Routes) -> None:
        """Answer with ``routes`` until the supervisor is gone."""
        threading.Thread(target=self._serve, args=(routes,), name="outbox-health", daemon=True).start()

    def leave(self, page: str) -> None:
        """The worker has stopped: these are its last metrics."""
        with suppress(OSError):
            self._control.send(zlib.compress(page.encode()), socket.MSG_DONTWAIT)

    def _serve(self, routes: Routes) -> None:
        with self._control, suppress(OSError):
            self._control.sendall(_HELLO)
            while True:
                message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
                if not message:
                    return
                for descriptor in descriptors:
                    answer(socket.socket(fileno=descriptor), routes)
