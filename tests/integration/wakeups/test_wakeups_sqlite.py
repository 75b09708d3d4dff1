"""SQLite: what another process commits is seen within tens of milliseconds, and idling costs nearly nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from tests.support.embedded_worker import RARELY, TIMEOUT, Arrival, Ping, put, working
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers


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
            assert time.monotonic() - began < RARELY, "it looks once a minute"


async def test_the_end_of_a_pause_by_another_process_wakes_the_worker(migrated_url: str) -> None:
    target = PauseTarget(PauseKind.JOB, Ping.name)
    other = DatabaseDriver(migrated_url)
    await other.pauses.pause(target, PauseTerms())
    async with working(migrated_url) as worker:
        kept = Arrival()
        await put(migrated_url, kept.job)
        async with asyncio.timeout(TIMEOUT):
            while not any(counts.parked for counts in await other.queues.counts()):
                await asyncio.sleep(0.02)
        await worker.idle()
        await other.pauses.resume(target, lambda _: None)
        await kept()
    await other.close()


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
