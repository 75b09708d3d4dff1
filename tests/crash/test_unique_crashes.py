"""Unique jobs whose workers are killed all along: no event is lost, and no two jobs of a key run at once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from outbox import dispatch
from tests.crash.harness import FLAGS, DatabaseHarness, now
from tests.crash.verdict import TICK
from tests.support.orders import async_engine
from tests.support.recorded_unique_jobs import VERSIONS_OF_A_KEY, Newest
from tests.support.worker_processes import Run, WorkerProcess

KEYS, KILLS = 4, 6


@dataclass(frozen=True)
class Event:
    """A dispatch whose transaction was committed, and when the COMMIT was sent."""

    key: int
    number: int
    at: float


@pytest.fixture
async def harness(migrated_url: str, tmp_path: Path) -> AsyncIterator[DatabaseHarness]:
    harness = DatabaseHarness(migrated_url, tmp_path)
    harness.workers.modules = "tests.support.recorded_unique_jobs,tests.crash.held"
    yield harness
    await harness.close()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    # SQLite lets one writer in, in no order: on a busy machine, one may wait for long.
    engine = async_engine(migrated_url, connect_args={"timeout": 60} if "sqlite" in migrated_url else {})
    yield engine
    await engine.dispose()


async def application(engine: AsyncEngine, key: int, stopped: Callable[[], bool], committed: list[Event]) -> None:
    """Each event is one transaction; some of them roll back, some take a while."""
    chance, version = random.Random(key), 0
    while not stopped():
        version += 1
        number = key * VERSIONS_OF_A_KEY + version
        async with AsyncSession(engine) as session:
            await dispatch(Newest(number=number, seconds=0.02), session=session)
            await session.flush()
            # SQLite's one writer holds up everybody else meanwhile.
            await asyncio.sleep(0 if engine.dialect.name == "sqlite" else chance.choice([0, 0, 0.05]))
            if chance.random() < 0.2:
                await session.rollback()
            else:
                sent = now()
                await session.commit()
                committed.append(Event(key, number, sent))
        await asyncio.sleep(chance.choice([0.01, 0.05]))


async def test_no_event_is_lost_whatever_is_killed(harness: DatabaseHarness, engine: AsyncEngine) -> None:
    committed: list[Event] = []
    stop = asyncio.Event()
    applications = [asyncio.create_task(application(engine, key, stop.is_set, committed)) for key in range(KEYS)]
    flags = ("--concurrency", "4", *FLAGS)
    workers = [await harness.workers.started(*flags), await harness.workers.started(*flags)]
    chance = random.Random(5)
    for _ in range(KILLS):
        await harness.oracle.wait("end", len(harness.oracle.runs("end")) + 10)
        await asyncio.sleep(chance.uniform(0, 0.1))
        victim: WorkerProcess = workers.pop(0)
        await victim.kill()
        workers.append(await harness.workers.started(*flags))
    stop.set()
    await asyncio.gather(*applications)
    await harness.all_done()
    for worker in workers:
        assert await worker.terminate() == 0
    assert await harness.driver.failed.page() == []
    runs = harness.oracle.runs()
    assert_nothing_lost(committed, runs)
    assert_no_two_at_once(runs)
    assert len(harness.oracle.runs("begin")) < len(committed), "some events shared a job"


def assert_nothing_lost(committed: list[Event], runs: list[Run]) -> None:
    """Each event is followed by a run that began after its COMMIT was sent, has its payload or a newer one, and came to
    its end."""
    assert len(committed) > 50
    ended = {(run.id, run.attempt, run.pid) for run in runs if run.what == "end"}
    for event in committed:
        assert any(
            run.what == "begin"
            and run.at > event.at
            and event.number <= run.number < (event.key + 1) * VERSIONS_OF_A_KEY
            and (run.id, run.attempt, run.pid) in ended
            for run in runs
        ), f"lost: {event}"


def assert_no_two_at_once(runs: list[Run]) -> None:
    by_key: defaultdict[int, list[Run]] = defaultdict(list)
    for run in sorted((run for run in runs if run.what != "renewed"), key=lambda run: run.at):
        by_key[run.number // VERSIONS_OF_A_KEY].append(run)
    for lines in by_key.values():
        running: Run | None = None
        for line in lines:
            if line.what == "begin":
                assert running is None or running.id == line.id, f"{line} beside {running}"
                if running is not None:
                    assert line.at >= running.held_until - TICK, "the same job, after its worker has died"
                running = line
            elif running is not None and line.id == running.id:
                running = None
