"""Exactly one job for each tick, whatever dies: workers by kill -9 in the middle of a tick, and the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import outbox
from outbox.drivers.database import DatabaseDriver
from tests.servers import LocalServer, databases
from tests.support.scheduled_jobs import AFTER_COMMIT, AFTER_INSERT, BEFORE_INSERT
from tests.support.worker_processes import Oracle, WorkerProcess, Workers, until

FLAGS = ("--queue", "ticks", "--lease", "1.5", "--sleep", "0.1")
HOUR = 3600


class Fleet(Workers):
    def __init__(self, url: str, directory: Path) -> None:
        super().__init__(url, directory, "tests.support.scheduled_jobs")
        self.offset = 0.0

    def environment(self) -> dict[str, str]:
        return super().environment() | {"CLOCK_OFFSET": str(self.offset)}

    async def with_clock(self, offset: float) -> WorkerProcess:
        self.offset = offset
        return await self.started(*FLAGS)


@pytest.fixture
async def fleet(migrated_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(migrated_url, tmp_path)
    yield fleet
    await fleet.close()


def ticks(oracle: Oracle) -> dict[str, set[str]]:
    """The jobs of each tick that ran."""
    found: dict[str, set[str]] = {}
    for run in oracle.runs("tick"):
        found.setdefault(run.error.rpartition(" ")[0], set()).add(run.id)
    return found


async def count(oracle: Oracle, wanted: int) -> None:
    await until(lambda: len(ticks(oracle)) >= wanted, lambda: f"{wanted} ticks in {ticks(oracle)}")


def verify(oracle: Oracle) -> None:
    found = ticks(oracle)
    assert all(len(jobs) == 1 for jobs in found.values()), found
    moments = sorted(datetime.fromisoformat(each) for each in found)
    expected = [moments[0] + timedelta(seconds=number) for number in range(len(moments))]
    assert moments == expected, "none is missing"
    intervals = {run.error.rpartition(" ")[2] for run in oracle.runs("tick")}
    assert intervals <= {"1.0", "None"}, "each knows the one before"


async def test_workers_whose_clocks_differ_by_hours(fleet: Fleet) -> None:
    workers = [await fleet.with_clock(offset) for offset in (-HOUR, 0, HOUR)]
    await count(fleet.oracle, 5)
    # The job of a tick may have run before its worker has said that it ticked.
    await until(lambda: sum(len(worker.of("schedule_ticked")) for worker in workers) >= 5)
    for worker in workers:
        await worker.terminate()
    verify(fleet.oracle)
    driver = DatabaseDriver(fleet.url)
    now = (await driver.now()).astimezone(UTC).replace(tzinfo=None)
    await driver.close()
    assert all(abs(datetime.fromisoformat(each) - now) < timedelta(minutes=2) for each in ticks(fleet.oracle))


@pytest.mark.parametrize("moment", [BEFORE_INSERT, AFTER_INSERT, AFTER_COMMIT])
async def test_a_worker_killed_in_the_middle_of_a_tick(fleet: Fleet, tmp_path: Path, moment: str) -> None:
    workers = [await fleet.with_clock(offset) for offset in (-HOUR, 0, HOUR)]
    await count(fleet.oracle, 2)
    for _ in range(2):
        (tmp_path / "die").write_text(moment)
        await until(lambda: not (tmp_path / "die").exists(), lambda: "a death")
        await count(fleet.oracle, len(ticks(fleet.oracle)) + 2)
    await until(lambda: sum(worker.process.returncode is not None for worker in workers) == 2)
    dead = [worker for worker in workers if worker.process.returncode is not None]
    survivors = [worker for worker in workers if worker not in dead]
    await count(fleet.oracle, len(ticks(fleet.oracle)) + 1)
    for worker in survivors:
        await worker.terminate()
    verify(fleet.oracle)


async def test_ticks_while_no_worker_is_there(fleet: Fleet) -> None:
    first = await fleet.with_clock(0)
    await count(fleet.oracle, 2)
    await first.kill()
    before = len(ticks(fleet.oracle))
    await asyncio.sleep(2.5)  # of no worker at all: what is tested is that time passes
    second = await fleet.with_clock(HOUR)
    await count(fleet.oracle, before + 4)
    await second.terminate()
    verify(fleet.oracle)


@pytest.mark.alone_on_its_server("one by one")
async def test_a_database_that_is_killed_and_comes_back(local_database: LocalServer, tmp_path: Path) -> None:
    with databases.fresh_database(local_database) as url:
        databases.create_tables(url, outbox.metadata)
        fleet = Fleet(url, tmp_path)
        try:
            workers = [await fleet.with_clock(offset) for offset in (-HOUR, 0, HOUR)]
            await count(fleet.oracle, 2)
            local_database.kill()
            local_database.start()
            await count(fleet.oracle, len(ticks(fleet.oracle)) + 3)
            for worker in workers:
                await worker.terminate()
            verify(fleet.oracle)
        finally:
            await fleet.close()
