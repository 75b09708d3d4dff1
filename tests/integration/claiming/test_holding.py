"""Where a held job is in the claim index: moved out of the way of claims, or, for a moment, where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.claim_scan.cursors import ClaimCursors
from outbox.drivers.values import StoredJob, WorkerStatus
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelopes

COUNT = 50
HOUR = 3600


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    await driver.jobs.insert(envelopes(COUNT))
    yield driver
    await driver.close()


async def moved(driver: DatabaseDriver) -> set[bool]:
    """Of those held, whether they are where claims do not look."""
    held = [job for job in await driver.jobs.list_jobs() if job.reserved_until is not None]
    return {job.available_at == job.reserved_until for job in held}


async def test_jobs_held_briefly_stay_where_they_are_on_mysql(driver: DatabaseDriver, backend: str) -> None:
    waiting = {job.id: job.available_at for job in await driver.jobs.list_jobs()}
    claims = await driver.short_jobs.claim(["default"], COUNT, 60)
    assert len(claims) == COUNT
    assert await moved(driver) == {backend != "mysql"}
    stayed: list[StoredJob] = [job for job in await driver.jobs.list_jobs() if job.available_at == waiting[job.id]]
    assert len(stayed) == (COUNT if backend == "mysql" else 0)


async def test_they_are_moved_when_they_are_renewed(driver: DatabaseDriver) -> None:
    claims = await driver.short_jobs.claim(["default"], COUNT, 60)
    assert not (await driver.jobs.extend([claim.fence for claim in claims], 60)).lost
    assert await moved(driver) == {True}


async def test_whoever_takes_the_last_ones_moves_them(driver: DatabaseDriver) -> None:
    """So that those who look when the next job is due find nothing that is held."""
    assert len(await driver.short_jobs.claim(["default"], COUNT + 1, HOUR)) == COUNT
    assert await moved(driver) == {True}
    assert HOUR - 60 < ((await driver.jobs.next_due(["default"])).due or 0) <= HOUR


async def test_nobody_else_gets_a_job_that_is_held_in_place(driver: DatabaseDriver) -> None:
    held = await driver.short_jobs.claim(["default"], 20, 60)
    others = await driver.short_jobs.claim(["default"], COUNT, 60)
    assert len(others) == COUNT - 20
    assert {claim.fence.job_id for claim in held}.isdisjoint(claim.fence.job_id for claim in others)
    assert await driver.jobs.claim(["default"], COUNT, 60) == []


async def test_a_dead_workers_jobs_come_back_in_their_old_places(driver: DatabaseDriver, backend: str) -> None:
    held = await driver.short_jobs.claim(["default"], 20, 0)
    again = await driver.jobs.claim(["default"], COUNT, 60)
    assert {claim.fence.job_id for claim in again if claim.rescued} == {claim.fence.job_id for claim in held}
    assert [claim.attempt for claim in again].count(2) == 20
    if backend == "mysql":
        assert all(claim.rescued for claim in again[:20])
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in held])
    assert len(settled.stale) == 20


@pytest.mark.parametrize("way", ["retried", "released", "snoozed"])
async def test_put_back_they_become_available_when_they_were_told_to(driver: DatabaseDriver, way: str) -> None:
    claims = await driver.short_jobs.claim(["default"], COUNT, 60)
    ends = {
        "retried": lambda fence: Settlement.retried(fence, HOUR, FAILURE),
        "released": lambda fence: Settlement.released(fence, HOUR),
        "snoozed": lambda fence: Settlement.snoozed(fence, HOUR),
    }
    await driver.jobs.settle([ends[way](claim.fence) for claim in claims])
    due = (await driver.jobs.next_due(["default"])).due or 0
    # SQLite subtracts days, which are exact to 40 microseconds.
    assert HOUR - 60 < due <= HOUR + 0.001
    assert await driver.jobs.claim(["default"], COUNT, 60) == []


async def test_a_claim_whose_commit_was_not_answered_knows_what_it_holds(
    driver: DatabaseDriver, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has no connection that could be lost")
    engine = driver.database.engine.sync_engine
    commit, lost = engine.dialect.do_commit, [True]

    def commit_and_lose(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        if lost:
            lost.clear()
            raise engine.dialect.dbapi.OperationalError(2013, "Lost connection to server during query")  # type: ignore[union-attr]

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_lose)
    claims = await driver.short_jobs.claim(["default"], COUNT, 60)
    assert len(claims) == COUNT
    assert {claim.attempt for claim in claims} == {1}


async def test_the_oldest_is_the_oldest_that_waits(driver: DatabaseDriver) -> None:
    await driver.short_jobs.claim(["default"], COUNT, 60)
    [counts] = await driver.queues.counts()
    assert (counts.ready, counts.reserved, counts.oldest) == (0, COUNT, None)


async def test_what_is_held_in_place_is_not_cleared(driver: DatabaseDriver) -> None:
    await driver.short_jobs.claim(["default"], COUNT - 1, 60)
    assert await driver.queues.clear("default") == 1
    assert len(await driver.jobs.list_jobs()) == COUNT - 1


async def test_a_fleet_moves_what_it_holds(driver: DatabaseDriver, backend: str) -> None:
    """Each worker would pass over what all the others hold."""
    if backend != "mysql":
        pytest.skip("they are held in place on MySQL")
    now = [100.0]
    marks = driver.jobs.claim_scan.cursors = ClaimCursors(lambda: now[0])
    await driver.short_jobs.claim(["default"], 10, 60)
    assert (marks.workers, await moved(driver)) == (1, {False})
    for number in range(5):
        await driver.workers.heartbeat(
            WorkerStatus(bytes([number]) * 16, "name", "host", number, "default", 10, 0, 0, 0)
        )
    await driver.short_jobs.claim(["default"], 10, 60)
    assert (marks.workers, await moved(driver)) == (1, {False}), "they are not counted for every claim"
    now[0] += 6
    claims = await driver.short_jobs.claim(["default"], 10, 60)
    held = {job.id: job for job in await driver.jobs.list_jobs()}
    assert marks.workers == 5
    assert all(held[claim.fence.job_id].available_at == held[claim.fence.job_id].reserved_until for claim in claims)
