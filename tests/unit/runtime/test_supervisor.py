"""Processes that die, processes that are done, and a supervisor that dies itself. All of them real."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from outbox.events import ProcessEnded, ProcessStarted
from outbox.runtime.process import supervisor as module
from outbox.runtime.process.supervisor import Supervisor
from tests.support.worker_processes import is_pending
from tests.unit.runtime.memory import Recorder, until

CHILD = Path(__file__).with_name("children.py")


class Supervised:
    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        self.recorder = Recorder()
        self.supervisor: Supervisor | None = None
        self.task: asyncio.Task[int] | None = None

    def start(self, behaviour: str, count: int = 2, **options: Any) -> Supervisor:
        command = [sys.executable, str(CHILD), behaviour, str(self.log)]
        self.supervisor = Supervisor(command, count, self.recorder.events, **options)
        self.task = asyncio.create_task(self.supervisor.run())
        return self.supervisor

    def starts(self) -> list[tuple[int, int]]:
        """(index, pid) of every process that got as far as its own code."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    async def ended(self) -> int:
        assert self.task is not None
        return await asyncio.wait_for(self.task, 20)

    async def exits(self, count: int = 1) -> list[ProcessEnded]:
        return [event for event in await self.recorder.wait(ProcessEnded, count) if isinstance(event, ProcessEnded)]


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    handlers = {
        number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    }
    supervised = Supervised(tmp_path)
    yield supervised
    if supervised.supervisor is not None and supervised.task is not None and not supervised.task.done():
        supervised.supervisor.stop()
        await supervised.task
    for number, handler in handlers.items():
        signal.signal(number, handler)


async def test_a_process_that_is_killed_is_replaced(supervised: Supervised) -> None:
    supervisor = supervised.start("stay")
    await until(lambda: len(supervised.starts()) == 2)
    index, pid = supervised.starts()[0]
    os.kill(pid, signal.SIGKILL)
    (ended,) = await supervised.exits()
    assert (ended.index, ended.pid, ended.exit_code) == (index, pid, -signal.SIGKILL)
    await until(lambda: len(supervised.starts()) == 3)
    assert supervised.starts()[2][0] == index
    supervisor.stop()
    assert await supervised.ended() == 0


async def test_terminating_it_terminates_its_processes(supervised: Supervised) -> None:
    supervised.start("stay", count=3)
    await until(lambda: len(supervised.starts()) == 3)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await supervised.ended() == 0
    assert [ended.exit_code for ended in await supervised.exits(3)] == [0, 0, 0]
    for _, pid in supervised.starts():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_an_interrupt_at_the_terminal_reaches_processes_only_through_it(supervised: Supervised) -> None:
    supervisor = supervised.start("stay", count=1)
    await until(lambda: len(supervised.starts()) == 1)
    assert os.getpgid(supervised.starts()[0][1]) != os.getpgid(0)
    supervisor.stop()
    await supervised.ended()


async def test_it_ends_when_every_process_is_done(supervised: Supervised) -> None:
    supervised.start("exit 0", count=2)
    assert await supervised.ended() == 0
    assert [ended.restart_in for ended in await supervised.exits(2)] == [None, None]


@pytest.mark.parametrize("code", [12, 13])
async def test_a_process_that_wants_a_successor_gets_one_at_once(supervised: Supervised, code: int) -> None:
    supervised.start(f"exit {code}", count=1)
    (ended,) = await supervised.exits()
    assert (ended.exit_code, ended.restart_in) == (code, 0)
    await until(lambda: len(supervised.starts()) == 2)


async def test_processes_that_die_quickly_are_replaced_ever_more_slowly(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", 60.0)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    supervisor = supervised.start("exit 1 always", count=1)
    exits = await supervised.exits(5)
    assert [ended.restart_in for ended in exits[:5]] == [0.02, 0.04, 0.08, 0.1, 0.1]
    supervisor.stop()
    assert await supervised.ended() == 0


async def test_stopping_does_not_wait_for_a_process_that_waits_to_be_replaced(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 600.0)
    supervisor = supervised.start("exit 1 always", count=1)
    await supervised.exits()
    supervisor.stop()
    await supervised.ended()


async def test_a_wrong_configuration_stops_everything(supervised: Supervised) -> None:
    supervised.start("exit 2", count=2)
    assert await supervised.ended() == 2


async def test_reloading_replaces_every_process_also_those_that_are_done(supervised: Supervised) -> None:
    supervisor = supervised.start("exit 2", count=2, reloads=True)
    await supervised.exits(2)
    supervisor.restart()
    await supervised.recorder.wait(ProcessStarted, 4)
    await until(lambda: len(supervised.starts()) == 4)
    supervisor.restart()
    assert [ended.restart_in for ended in await supervised.exits(4)][2:] == [0, 0]
    await until(lambda: len(supervised.starts()) == 6)
    supervisor.stop()
    assert await supervised.ended() == 0


async def test_processes_stop_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """Not even kill -9 leaves orphans: they read the end of a pipe."""
    log = tmp_path / "log"
    source = (
        "import asyncio, sys\n"
        "from outbox.events import Events\n"
        "from outbox.runtime.process.supervisor import Supervisor\n"
        f"command = [sys.executable, {str(CHILD)!r}, 'stay', {str(log)!r}]\n"
        "asyncio.run(Supervisor(command, 2, Events()).run())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", source)
    await until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    process.kill()
    await process.wait()

    def alive(pid: int) -> bool:
        with suppress(ProcessLookupError, FileNotFoundError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    await until(lambda: not any(alive(pid) for pid in pids))


async def test_a_second_signal_kills(supervised: Supervised, tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = (
        "import asyncio, sys, time\n"
        "from outbox.events import Events\n"
        "from outbox.runtime.process.supervisor import Supervisor\n"
        "command = [sys.executable, '-c', 'import signal, time, pathlib, os, sys;"
        "signal.signal(15, signal.SIG_IGN); pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)', "
        f"{str(log)!r}]\n"
        "asyncio.run(Supervisor(command, 1, Events()).run())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", source)
    await until(lambda: log.exists() and log.read_text() != "")
    process.send_signal(signal.SIGINT)
    await until(lambda: not is_pending(process.pid, signal.SIGINT))
    await asyncio.sleep(0.2)
    assert process.returncode is None
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    await until(lambda: not Path(f"/proc/{log.read_text()}").exists())
