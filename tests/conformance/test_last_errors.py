"""What a job keeps of its last error while it waits for another attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.values import JobState, QueueCounts, StoredJob
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import SUMMARY_LIMIT, Failure, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope

ERROR = "ValueError: no such order"


async def stored(driver: Driver, job_id: JobId) -> StoredJob:
    job = await driver.jobs.get(job_id)
    assert job is not None
    return job


async def fail_once(driver: Driver, job: Envelope, delay: float = 60, failure: Failure = FAILURE) -> StoredJob:
    """A job that waits for its second attempt."""
    await driver.jobs.insert([job])
    claim = await claim_one(driver, job.queue)
    assert claim.fence.job_id == job.id
    await driver.jobs.settle([Settlement.retried(claim.fence, delay, failure)])
    return await stored(driver, job.id)


async def test_a_job_that_is_retried_keeps_its_error_and_its_time(driver: Driver) -> None:
    before = await driver.now()
    job = await fail_once(driver, envelope())
    assert (job.state, job.last_error) == (JobState.RETRYING, ERROR)
    assert job.last_error_at is not None
    # SQLite's clock has milliseconds.
    assert before - timedelta(milliseconds=1) <= job.last_error_at <= await driver.now()
    assert abs(job.available_at - job.last_error_at - timedelta(seconds=60)) < timedelta(seconds=5)


async def test_other_jobs_have_none(driver: Driver) -> None:
    await driver.jobs.insert([envelope(queue="released"), envelope(queue="snoozed"), envelope(queue="new", delay=60)])
    released, snoozed = await claim_one(driver, "released"), await claim_one(driver, "snoozed")
    retried = await fail_once(driver, envelope(queue="retried"))
    await driver.jobs.settle([Settlement.released(released.fence, 60), Settlement.snoozed(snoozed.fence, 60)])
    for job in await driver.jobs.list_jobs():
        if job.id != retried.id:
            assert (job.state, job.last_error, job.last_error_at) == (JobState.DELAYED, None, None)


async def test_the_latest_error_counts_and_stays_until_the_job_ends(driver: Driver) -> None:
    first = await fail_once(driver, envelope(), delay=0)
    claim = await claim_one(driver)
    running = await stored(driver, first.id)
    assert (running.state, running.last_error) == (JobState.RESERVED, ERROR)
    await driver.jobs.settle([Settlement.snoozed(claim.fence, 0)])
    given_back = await stored(driver, first.id)
    assert (given_back.state, given_back.last_error) == (JobState.READY, ERROR)
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.retried(claim.fence, 60, Failure("app.Late", "later", ""))])
    latest = await stored(driver, first.id)
    assert (latest.state, latest.last_error) == (JobState.RETRYING, "app.Late: later")
    assert latest.last_error_at is not None
    assert first.last_error_at is not None
    assert latest.last_error_at >= first.last_error_at


async def test_the_error_outlives_a_worker_that_dies_in_the_next_attempt(driver: Driver, other: Driver) -> None:
    job = await fail_once(driver, envelope(), delay=0)
    await claim_one(driver, lease=0)
    rescued = await claim_one(other)
    assert rescued.rescued
    assert (await stored(other, job.id)).last_error == ERROR


async def test_a_failed_job_that_is_put_back_begins_without_an_error(driver: Driver) -> None:
    job = await fail_once(driver, envelope(), delay=0)
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE)])
    assert await driver.failed.retry([job.id]) == [job.id]
    again = await stored(driver, job.id)
    assert (again.state, again.attempts, again.last_error) == (JobState.READY, 0, None)


async def test_a_zombie_writes_no_error(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    await claim_one(other)
    assert (await driver.jobs.settle([Settlement.retried(lost.fence, 60, FAILURE)])).accepted == ()
    assert (await stored(other, lost.fence.job_id)).last_error is None


@pytest.mark.parametrize("message", ["Größe \N{PILE OF POO} 'x' \"y\" \\z %s ?\nsecond line", "", "x" * 9_000])
async def test_any_message_is_kept_up_to_its_limit(driver: Driver, message: str) -> None:
    job = await fail_once(driver, envelope(), failure=Failure("E", message, ""))
    assert job.last_error == (f"E: {message}" if message else "E")[:SUMMARY_LIMIT]


async def test_retrying_is_counted_apart_from_delayed(driver: Driver) -> None:
    await fail_once(driver, envelope(queue="mail"))
    await fail_once(driver, envelope(queue="mail"))
    await driver.jobs.insert([envelope(queue="mail", delay=60)])
    await fail_once(driver, envelope(queue="mail"), delay=0)
    counts = await driver.queues.counts()
    assert [(one.queue, one.ready, one.delayed, one.retrying, one.reserved) for one in counts] == [("mail", 1, 1, 2, 0)]
    running = await claim_one(driver, "mail")
    waiting = [job.id for job in await driver.jobs.list_jobs() if job.state is JobState.RETRYING]
    assert await driver.jobs.cancel(waiting[:1]) == waiting[:1]
    [counts_now] = await driver.queues.counts()
    assert counts_now == QueueCounts("mail", 0, 1, 1, 0, None, paused=False, retrying=1)
    await driver.jobs.settle([Settlement.completed(running.fence)])
    assert await driver.queues.clear("mail") == 2
    assert await driver.queues.counts() == []
