"""Jobs with policies that an operator gives another time: they stay correct, or are refused with the reason."""

from __future__ import annotations

import asyncio

import pytest

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.drivers.values import JobChange, JobState
from outbox.envelope import Envelope, serialize
from outbox.errors import JobNotWaiting
from outbox.options import JobOptions
from outbox.relay.route import to_relay_row
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope
from tests.conformance.test_last_errors import stored
from tests.integration.policies.test_keys import Ordered, claim, end, ids, limited
from tests.integration.policies.unique_job_classes import Sync
from tests.support.row_locks import arrivals

NOW, LATER = JobChange(delay=0.0), JobChange(delay=3_600)


class Rated(Job):
    name = "changed.Rated"
    rate = "1/h"

    async def handle(self) -> None: ...


def job(of: Job, **options: object) -> Envelope:
    return serialize(of, JobOptions.checked(**options))  # type: ignore[arg-type]


async def test_a_unique_job_runs_when_it_is_told_to(database: DatabaseDriver) -> None:
    """Claims go by the time in the row of the policy."""
    waiting = job(Sync(customer_id=7), delay=3_600)
    await database.policies.insert_unique([waiting])
    await database.jobs.change(waiting.id, NOW)
    assert ids(await claim(database)) == [waiting.id]
    later = job(Sync(customer_id=8))
    await database.policies.insert_unique([later])
    await database.jobs.change(later.id, LATER)
    met = job(Sync(customer_id=8))
    assert await database.policies.insert_unique([met]) == {met.id: later.id}, "dispatches still join it"
    assert await claim(database) == []


async def test_a_job_of_a_limited_key_takes_its_place_by_its_new_time(database: DatabaseDriver) -> None:
    delayed = limited(delay=3_600)
    await database.jobs.insert([delayed, limited(), limited()])
    running = await claim(database)
    await database.jobs.change(delayed.id, NOW)
    await database.jobs.insert([limited()])
    assert await claim(database) == []
    parked = await stored(database, delayed.id)
    assert parked.state is JobState.PARKED, "its key is full"
    with pytest.raises(JobNotWaiting, match="parked"):
        await database.jobs.change(delayed.id, NOW)
    await database.jobs.change(delayed.id, JobChange(priority=1))
    assert (await stored(database, delayed.id)).state is JobState.PARKED
    await end(database, Settlement.completed(running[0].fence), running[0])
    again = await claim(database)
    assert [(each.fence.job_id, each.priority) for each in again] == [(delayed.id, 1)]


async def test_order_and_turns_are_kept(database: DatabaseDriver) -> None:
    first, rated = job(Ordered(), delay=3_600), [job(Rated()) for _ in range(2)]
    await database.jobs.insert([first, *rated])
    assert ids(await claim(database)) == [rated[0].id]
    for waiting, reason in ((first, "ordering key"), (rated[1], "rate limit|parked")):
        before = await stored(database, waiting.id)
        with pytest.raises(JobNotWaiting, match=reason):
            await database.jobs.change(waiting.id, NOW)
        assert await stored(database, waiting.id) == before
    await database.jobs.change(first.id, JobChange(priority=0))
    assert (await stored(database, first.id)).priority == 0


async def test_a_job_on_its_way_is_changed_where_it_goes(database: DatabaseDriver) -> None:
    waiting = to_relay_row(envelope(), "redis")
    await database.jobs.insert([waiting])
    for wanted in (NOW, JobChange(queue="other")):
        with pytest.raises(JobNotWaiting, match="on its way to the connection redis"):
            await database.jobs.change(waiting.id, wanted)


async def test_a_claim_that_is_about_to_commit_is_waited_for(database: DatabaseDriver, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    one = envelope()
    await database.jobs.insert([one])
    taking = ClaimTransaction(
        database.database,
        database.jobs.unconfirmed,
        database.jobs.claim_scan,
        "database",
        ClaimRequest(["default"], 5, 30),
    )
    async with database.database.engine.connect() as connection:
        [taken] = await taking.run(connection)
        with arrivals(database) as seen:
            changing = asyncio.create_task(database.jobs.change(one.id, JobChange(queue="other", delay=0.0)))
            await seen.wait_for(1)
        await connection.commit()
    with pytest.raises(JobNotWaiting, match="runs"):
        await changing
    assert (await stored(database, one.id)).queue == "default"
    assert (await database.jobs.settle([Settlement.completed(taken.fence)])).accepted


async def test_a_job_whose_worker_is_gone_is_changed_and_rescued(database: DatabaseDriver) -> None:
    one = envelope()
    await database.jobs.insert([one])
    await claim_one(database, lease=0)
    await database.jobs.change(one.id, JobChange(queue="other"))
    rescued = await claim_one(database, "other")
    assert (rescued.fence.job_id, rescued.rescued) == (one.id, True)
