"""Processes that work while they are measured: workers of outbox, and whatever they are compared with."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import job_counters
from benchmarks.stores import Store

ROOT = Path(__file__).parents[1]
LIMIT = 900.0
"""Seconds after which a measurement is given up."""

_LOOK_EVERY = 0.02
_STOP_WITHIN = 40.0
_TAIL = 2_000


class ProgramFailedError(Exception):
    """A process ended that should not have, or did not do its work in time."""


class Programs:
    """The processes of one measurement, all of one ``python``. They run in a directory of their own and count there.
    Leaving the context ends them."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self._python = python
        self.counter_files = directory / "counter_files"
        self.counter_files.mkdir(parents=True)
        self.processes: list[Process] = []
        self._directory = directory
        self._log = directory / "programs.log"

    async def start(self, *arguments: str, environment: Mapping[str, str], talks: bool = False) -> Process:
        """Run ``python`` with these arguments. A PYTHONPATH of the ``environment`` goes before the repository.

        One that ``talks`` has its input and its output connected to this process; what the others say goes to a log,
        which is quoted when something goes wrong."""
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT), os.environ.get("PYTHONPATH")]))
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                self._python,
                *arguments,
                cwd=self._directory,
                env={**os.environ, **environment, "PYTHONPATH": path, job_counters.VARIABLE: str(self.counter_files)},
                stdin=PIPE if talks else DEVNULL,
                stdout=PIPE if talks else log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    async def ran(self, jobs: int) -> job_counters.Total:
        """Wait until so many jobs have run, and say what was counted.

        :raises ProgramFailedError: a process ended with an error, or it took too long.
        """
        end = asyncio.get_running_loop().time() + LIMIT
        while (count := job_counters.counted(self.counter_files)) < jobs:
            self.check()
            if asyncio.get_running_loop().time() > end:
                raise ProgramFailedError(f"{count} of {jobs} jobs have run in {LIMIT:.0f} s\n{self._last_words()}")
            await asyncio.sleep(_LOOK_EVERY)
        return job_counters.total(self.counter_files)

    def check(self) -> None:
        """:raises ProgramFailedError: a process ended with an error."""
        for process in self.processes:
            if process.returncode:
                raise ProgramFailedError(f"a process ended with {process.returncode}\n{self._last_words()}")

    async def stop(self) -> None:
        """Ask every process to end, and see to it that it does."""
        for process in self.processes:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await asyncio.gather(*(process.wait() for process in self.processes))
        except TimeoutError:
            for process in self.processes:
                if process.returncode is None:
                    process.kill()

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-_TAIL:] if self._log.exists() else ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def start_workers(
    programs: Programs, store: Store, processes: int, *flags: str, environment: Mapping[str, str] | None = None
) -> None:
    """Worker processes, each ``python -m outbox.work``; returns once all of them are at work."""
    environment = {**store.environment(), "OUTBOX_JOBS": "benchmarks.jobs", **(environment or {})}
    for _ in range(processes):
        await programs.start("-m", "outbox.work", *flags, environment=environment)
    driver = store.driver()
    try:
        async with asyncio.timeout(LIMIT):
            while len(await driver.workers.all()) < processes:
                programs.check()
                await asyncio.sleep(_LOOK_EVERY)
    finally:
        await driver.close()
