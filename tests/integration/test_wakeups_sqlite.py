"""SQLite: what another process commits is seen within tens of milliseconds, and idling costs nearly nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.jobs import Counted
from tests.crash.running import ROOT, Workers
from tests.integration.waking import Arrival, put, working


@pytest.fixture
def backend() -> str:
    return "sqlite"


async def test_a_commit_of_another_process_is_seen_long_before_the_next_look(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        assert worker.woken_by == "data version"
        for _ in range(5):
            arrival = Arrival()
            await put(migrated_url, arrival.job)
            began = time.monotonic()
            await arrival()
            assert time.monotonic() - began < 5, "it looks once a minute"


async def test_worker_processes_see_each_others_commits(migrated_url: str, tmp_path: Path) -> None:
    workers = Workers(migrated_url, tmp_path)
    worker = await workers.started("--sleep", "60", "--wake", "auto")
    [started] = worker.of("worker_started")
    assert started["wakeups"] == ["data version"]
    await put(migrated_url, Counted(number=1))
    [run] = await workers.oracle.wait("end")
    assert run.number == 1
    await workers.close()


async def test_polling_alone_finds_it_too(migrated_url: str) -> None:
    async with working(migrated_url, wake="poll", sleep=0.2) as worker:
        assert worker.woken_by == "polling: --wake poll"
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await arrival()


WATCH = """
import asyncio, sys, time
from pathlib import Path
from outbox.notify.data_version import DataVersion

async def main():
    watched = DataVersion(Path(sys.argv[1]))
    watched.clear()
    before = time.process_time()
    await watched.wait(4)
    print((time.process_time() - before) / 4)

asyncio.run(main())
"""


async def test_watching_takes_less_than_one_percent_of_a_processor(migrated_url: str) -> None:
    file = migrated_url.partition("///")[2]
    command = [sys.executable, "-c", WATCH, file]
    watching = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(watching.stdout) < 0.01
