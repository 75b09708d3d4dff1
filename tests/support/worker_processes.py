"""Worker processes, their logs, and the oracle of what their jobs did."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.python_process import ROOT, ForkedProcess, start_python

TIMEOUT = 60.0
"""Seconds after which a test gives up waiting for what a worker should do: less than a worker with ``--sleep 60``
sleeps, so that what it does sooner was told to it."""


@dataclass(frozen=True)
class Run:
    """One line of the oracle."""

    what: str
    id: str
    number: int
    attempt: int
    pid: int
    at: float
    error: str = ""
    held_until: float = 0.0
    """The earliest end of its lease by then, where that is noted (`tests/crash/held.py`)."""


class Oracle:
    """The log that jobs append to, outside outbox's tables."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: list[Run] = []
        self._read = 0
        """Bytes of the log that are in ``_runs``: a test that waits looks every 20 ms."""

    def runs(self, what: str | None = None) -> list[Run]:
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self._read)
                read = log.read()
            # Where a line crosses a page of the file, its first part can be seen for a moment without the other.
            whole = read[: read.rfind(b"\n") + 1]
            self._read += len(whole)
            self._runs += [Run(**json.loads(line)) for line in whole.splitlines()]
        return [run for run in self._runs if what is None or run.what == what]

    async def wait(self, what: str, count: int = 1) -> list[Run]:
        await until(lambda: len(self.runs(what)) >= count, lambda: f"{count} times {what!r} in {self.runs()}")
        return self.runs(what)


async def until(
    condition: Callable[[], bool], describe: Callable[[], str] = lambda: "", *, within: float = TIMEOUT
) -> None:
    """Look until ``condition`` holds; fail when that takes longer than ``within`` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"waited {within:.0f} s for {describe()}"
        await asyncio.sleep(0.02)


class WorkerProcess:
    """``python -m outbox.work --json …``, and the events that it logs."""

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.other: list[str] = []
        """What it wrote that is not an event."""
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.other.append(line.decode(errors="replace"))

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            each
            for each in list(self.events)
            if each["event"] == event and all(each.get(key) == value for key, value in fields.items())
        ]

    async def event(self, event: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        await until(
            lambda: len(self.of(event, **fields)) >= count,
            lambda: f"{count} times {event} {fields}; it said {self.events[-20:]} {self.other[-20:]}",
        )
        return self.of(event, **fields)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def exit_code(self, *, within: float = TIMEOUT) -> int:
        try:
            async with asyncio.timeout(within):
                code = await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"it did not end; it said {self.events[-20:]} {self.other[-20:]}") from None
        await self._reader
        return code

    async def terminate(self) -> int:
        code = self.process.returncode
        assert code is None, f"it ended by itself with {code}; it said {self.events[-20:]} {self.other[-20:]}"
        self.send(signal.SIGTERM)
        return await self.exit_code()

    async def kill(self) -> None:
        """SIGKILL, for all of its processes."""
        for pid in {self.pid, *(event["pid"] for event in self.of("process_started"))}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()
        await self._reader


class Workers:
    """Starts workers of a test, and leaves none behind."""

    def __init__(self, url: str, directory: Path, modules: str = "tests.support.recorded_jobs") -> None:
        self.url = url
        self.directory = directory
        self.modules = modules
        self.ignored_signals: tuple[signal.Signals, ...] = ()
        """What a worker that is started from now on ignores, as under ``nohup``."""
        self.oracle = Oracle(directory / "runs.log")
        self._started: list[WorkerProcess] = []

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {
            **os.environ,
            "DATABASE_URL": self.url,
            "OUTBOX_JOBS": self.modules,
            "RUN_LOG": str(self.oracle.path),
            "PYTHONPATH": path,
        }

    async def start(self, *flags: str, json_lines: bool = True, cwd: Path | None = None) -> WorkerProcess:
        process = await start_python(
            *("-m", "outbox.work", *flags, *(["--json"] if json_lines else [])),
            cwd=cwd or self.directory,
            env=self.environment(),
            stderr=asyncio.subprocess.STDOUT,
            limit=2**22,
            ignored_signals=self.ignored_signals,
        )
        self._started.append(WorkerProcess(process))
        return self._started[-1]

    async def started(self, *flags: str, **options: Any) -> WorkerProcess:
        """The same, and wait until it says that it works."""
        worker = await self.start(*flags, **options)
        await worker.event("worker_started")
        return worker

    async def close(self) -> None:
        for worker in self._started:
            with suppress(ProcessLookupError):
                worker.send(signal.SIGCONT)
            await worker.kill()


def is_pending(pid: int, number: int) -> bool:
    """Whether a process has yet to take a signal that it was sent: until then, the same once more is one to the
    kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(found, 16) >> (number - 1) & 1 for found in re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", status))


def numbers(runs: Iterable[Run]) -> list[int]:
    return sorted(run.number for run in runs)
