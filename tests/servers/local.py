"""A server process on this machine that a test owns: it can be killed, and started again on what it left behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.servers import process
from tests.servers.errors import ServerFailedError, ServerMissingError
from tests.servers.ping import wait_until_it_answers

START_SECONDS = 120.0
STOP_SECONDS = 30.0


class LocalServer(ABC):
    """The same port and the same data directory for the whole of its life, through every kill and restart.

    Its calls block for as long as the server takes. In async code: `await asyncio.to_thread(server.restart)`.
    """

    kind: ClassVar[str]
    remedy: ClassVar[str]
    """What to install where its program is missing: the end of "no … server: "."""

    def __init__(self, directory: Path, *, options: Sequence[str] = (), template: Path | None = None) -> None:
        """Use `directory`, which is made if need be; start nothing yet.

        `options` are added to the server's command line, after those that every test wants. `template` is the directory
        of a server of this kind that was prepared and never started: copying it is quicker than preparing.

        :raises ServerMissingError: its program is not on this machine.
        """
        self.directory = directory
        self.options = tuple(options)
        self.template = template
        self.port = process.free_port()
        self.program = self.find_program()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def find_program(cls) -> str:
        """:raises ServerMissingError: there is none that these tests can use."""
        if program := cls.program_on_this_machine():
            return program
        raise ServerMissingError(cls.kind, cls.remedy)

    @classmethod
    @abstractmethod
    def program_on_this_machine(cls) -> str | None: ...

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it answers, now or after the next start."""

    @abstractmethod
    def prepare(self) -> None:
        """Make and fill the data directory."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments, to run in the foreground."""

    @classmethod
    def prepared(cls, directory: Path) -> Path:
        """A template in `directory`."""
        server = cls(directory)
        server.prepare()
        return directory

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.kind}.log"

    @property
    def pid(self) -> int | None:
        """The running process, to signal it (SIGSTOP, SIGCONT); None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it on its data, and return when it answers. Does nothing when it runs.

        :raises ServerFailedError: it exited, or did not answer within a minute. The message ends with its log.
        """
        if self.pid:
            return
        if not self.data.exists():
            self.fill()
        self._process = process.start(self.command(), self.log)
        try:
            wait_until_it_answers(self.url, seconds=START_SECONDS, still_running=lambda: self.pid is not None)
        except ServerFailedError as error:
            self.kill()
            raise ServerFailedError(f"{self.program} did not start: {error}\n{process.tail(self.log)}") from error

    def kill(self) -> None:
        """End it at once with SIGKILL: what it had not written is lost, as in a crash."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in good order. Safe when it never started, and when it is stopped twice."""
        if not self._process:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)  # a paused server cannot hear the other one
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """Start it on the data that it left, after a kill or, when it still runs, a stop."""
        self.stop()
        self.start()

    def fill(self) -> None:
        """Make the data directory, which must not be there."""
        if self.template:
            shutil.copytree(self.template, self.directory, dirs_exist_ok=True)
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.prepare()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
