"""Servers that the processes of one test run share: one process starts each of them, when another asks for it first.

With pytest-xdist the controller runs the broker, so a server outlives the worker process that asked for it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from tests.servers.discover import BACKENDS, find
from tests.servers.storage import in_memory

Answer = str | Exception
TEMPLATES = ("mysql", "mariadb")
PREPARED = "prepared "
"""Before the kind of a server: the directory of one that has never been started, to be copied."""


class Broker:
    """Answers with a URL or a directory, or with the error that says why there is none."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="outbox-tests-", dir=in_memory()))
        self._listener = Listener(backlog=64)
        self._running = ExitStack()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._closed = False
        self.groups: dict[str, str] = {}
        """The groups of tests, by the names of the tests, as a worker has told them."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self._listener.address)

    def start_soon(self, wanted: str) -> None:
        """Begin to start what will be asked for."""
        threading.Thread(target=self.answer, args=(wanted,), daemon=True).start()

    def answer(self, wanted: str) -> Answer:
        with self._lock:
            lock = self._locks.setdefault(wanted, threading.Lock())
        with lock:
            if wanted not in self._answers:
                try:
                    self._answers[wanted] = self._start(wanted)
                except Exception as error:
                    self._answers[wanted] = error
            return self._answers[wanted]

    def close(self) -> None:
        """End the servers. One that is being started has no test that waits for it: its start is waited for."""
        self._closed = True
        self._listener.close()
        with ExitStack() as held, self._running:
            for lock in list(self._locks.values()):
                held.enter_context(lock)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, wanted: str) -> str:
        directory = self._directory / wanted.replace(" ", "-")
        if wanted.startswith(PREPARED):
            directory.mkdir()
            return str(BACKENDS[wanted.removeprefix(PREPARED)].local.prepared(directory))
        template = partial(self._template, wanted) if wanted in TEMPLATES else None
        return self._running.enter_context(find(wanted, directory, template)).url

    def _template(self, kind: str) -> Path:
        answer = self.answer(PREPARED + kind)
        if isinstance(answer, Exception):
            raise answer
        return Path(answer)

    def _accept(self) -> None:
        while not self._closed:
            with suppress(OSError, EOFError):
                threading.Thread(target=self._serve, args=(self._listener.accept(),), daemon=True).start()

    def _serve(self, client: Connection) -> None:
        with client, suppress(OSError, EOFError):
            asked = client.recv()
            if isinstance(asked, dict):
                self.groups.update(asked)
                client.send(None)
            else:
                client.send(self.answer(asked))


def ask(address: str, wanted: str) -> str:
    """What the broker at ``address`` has: a URL or a directory.

    :raises ServerMissingError: nothing provides such a server here.
    :raises ServerFailedError: it does not start.
    """
    with Client(address) as broker:
        broker.send(wanted)
        answer: Answer = broker.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def tell_groups(address: str, groups: dict[str, str]) -> None:
    with Client(address) as broker:
        broker.send(groups)
        broker.recv()
