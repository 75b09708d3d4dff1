"""Waiting jobs that an operator gives another time, queue or priority."""

from __future__ import annotations

from datetime import timedelta

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.values import JobChange, JobState
from outbox.errors import JobNotWaiting
from outbox.ids import new_job_id
from outbox.settlement import Settlement
from tests.conformance.conftest import SQL
from tests.conformance.jobs import claim_one, envelope
from tests.conformance.test_last_errors import ERROR, fail_once, stored

NOW = JobChange(delay=0.0)


async def test_a_job_runs_at_another_time(driver: Driver) -> None:
    delayed, ready = envelope(delay=3_600), envelope()
    await driver.jobs.insert([delayed, ready])
    assert await driver.jobs.change(ready.id, JobChange(delay=3_600)) == "default"
    assert (await stored(driver, ready.id)).state is JobState.DELAYED
    assert await driver.jobs.change(delayed.id, NOW) == "default"
    assert (await claim_one(driver)).fence.job_id == delayed.id
    assert await driver.jobs.claim(["default"], 1, 30) == []
    later = await driver.now() + timedelta(days=1)
    await driver.jobs.change(ready.id, JobChange(at=later))
    # SQLite's clock has milliseconds.
    assert abs((await stored(driver, ready.id)).available_at - later) < timedelta(milliseconds=1)
    await driver.jobs.change(ready.id, JobChange(at=later - timedelta(days=2)))
    assert (await claim_one(driver)).fence.job_id == ready.id


async def test_a_job_that_is_retried_keeps_its_error(driver: Driver) -> None:
    job = await fail_once(driver, envelope())
    await driver.jobs.change(job.id, JobChange(delay=600))
    waiting = await stored(driver, job.id)
    assert (waiting.state, waiting.last_error, waiting.attempts) == (JobState.RETRYING, ERROR, 1)
    assert [(each.retrying, each.delayed) for each in await driver.queues.counts()] == [(1, 0)]
    await driver.jobs.change(job.id, NOW)
    assert (await stored(driver, job.id)).last_error == ERROR
    assert (await claim_one(driver)).attempt == 2


async def test_a_job_gets_another_priority_and_joins_its_end(driver: Driver) -> None:
    first, urgent, last = envelope(), envelope(priority=1), envelope(delay=3_600)
    await driver.jobs.insert([first, urgent, last])
    assert await driver.jobs.change(first.id, JobChange(priority=1)) == "default"
    await driver.jobs.change(last.id, JobChange(priority=0))
    assert (await stored(driver, last.id)).state is JobState.DELAYED
    assert [(await claim_one(driver)).fence.job_id for _ in range(2)] == [urgent.id, first.id]
    await driver.jobs.change(last.id, NOW)
    assert (await claim_one(driver)).priority == 0


async def test_a_job_gets_another_queue_where_the_store_can_do_it(driver: Driver, backend: str) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    wanted = JobChange(queue="other", priority=2)
    if backend not in SQL:
        with pytest.raises(JobNotWaiting, match="keeps its queue"):
            await driver.jobs.change(job.id, wanted)
        assert (await claim_one(driver)).priority == 5
        return
    assert await driver.jobs.change(job.id, wanted) == "other"
    assert await driver.jobs.claim(["default"], 1, 30) == []
    claim = await claim_one(driver, "other")
    assert (claim.fence.job_id, claim.priority) == (job.id, 2)


@pytest.mark.parametrize("wanted", [NOW, JobChange(delay=60), JobChange(priority=0)])
async def test_a_job_that_runs_is_left_as_it_is(driver: Driver, wanted: JobChange) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    claim = await claim_one(driver)
    before = await stored(driver, job.id)
    with pytest.raises(JobNotWaiting, match="runs"):
        await driver.jobs.change(job.id, wanted)
    assert await stored(driver, job.id) == before
    end = Settlement.completed(claim.fence)
    assert (await driver.jobs.settle([end])).accepted == (end,)
    assert await driver.jobs.change(job.id, wanted) is None


async def test_what_is_no_live_job_is_not_changed(driver: Driver) -> None:
    assert await driver.jobs.change(new_job_id(), NOW) is None
