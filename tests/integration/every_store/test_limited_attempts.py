"""Limits of attempts beyond `max_tries`, in a worker on every store: exceptions, snoozes, timeouts, and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

import outbox
from outbox import Job, dispatch
from outbox.drivers.base import Driver
from outbox.drivers.values import JobState
from outbox.envelope import Headers
from outbox.events import JobSettled, JobSkipped
from outbox.ids import JobId
from outbox.settlement import Outcome
from tests.integration.every_store.conftest import Store
from tests.support.embedded_worker import Embedded

STEPS: dict[JobId, list[str]] = {}
"""What each attempt does: `raise`, `snooze`, `release`, `postpone`, `hang`, `return`. The last step repeats."""


class Stepwise(Job):
    name = "tests.attempt_limits.Stepwise"
    backoff = 0
    steps: str = "raise"

    async def handle(self) -> None:
        steps = STEPS.setdefault(self.context.job_id, self.steps.split())
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if step == "raise":
            raise ValueError("no")
        if step == "hang":
            await asyncio.Event().wait()
        if step == "snooze":
            self.context.snooze(0)
        if step == "release":
            self.context.release(0.1)
        if step == "postpone":
            self.context.release(2.2)


class Limited(Stepwise):
    name = "tests.attempt_limits.Limited"
    max_tries = 10
    max_exceptions = 2
    max_snoozes = 2
    fail_on_timeout = True


@pytest.fixture(autouse=True)
def no_steps() -> None:
    STEPS.clear()


async def outcomes(embedded: Embedded, count: int) -> Sequence[Outcome]:
    await embedded.event(JobSettled, count)
    return [event.outcome for event in embedded.of(JobSettled)]


async def until_later(driver: Driver, seconds: float) -> None:
    """Until the store's clock has moved on by so much."""
    begun = await driver.now()
    while (await driver.now() - begun).total_seconds() <= seconds:
        await asyncio.sleep(0.01)


R, S, F = Outcome.RETRIED, Outcome.SNOOZED, Outcome.FAILED


async def test_the_last_exception_that_a_job_may_raise_fails_it(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Limited(steps="raise release raise"))
        assert await outcomes(embedded, 3) == [R, Outcome.RELEASED, F]
        failed = await store.driver.failed.get(job_id)
        assert failed is not None
        assert (failed.failure.type, failed.attempts) == ("ValueError", 3)
        assert Headers.load(failed.headers).counts is None, "put back, it would count from here"


async def test_a_failed_job_that_is_put_back_counts_from_the_beginning(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Limited(steps="raise"))
        assert await outcomes(embedded, 2) == [R, F]
        assert await outbox.retry(job_id)
        assert await outcomes(embedded, 4) == [R, F, R, F]
        job_id = await dispatch(Limited(steps="snooze"))
        assert (await outcomes(embedded, 7))[4:] == [S, S, F]
        failed = await store.driver.failed.get(job_id)
        assert failed is not None
        assert failed.failure.type == "outbox.errors.AttemptsExhausted"
        assert "has snoozed 2 times, its max_snoozes, already" in failed.failure.message
        assert await outbox.retry(job_id)
        assert (await outcomes(embedded, 10))[7:] == [S, S, F]


async def test_a_job_keeps_what_it_has_counted_where_it_waits(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Limited(steps="raise snooze return"), backoff=60, max_exceptions=9)
        await outcomes(embedded, 1)
    waiting = await store.driver.jobs.get(job_id)
    assert waiting is not None
    headers = Headers.load(waiting.headers)
    assert headers.counts is not None
    assert (headers.counts.exceptions, headers.counts.snoozes) == (1, 0)
    assert (headers.options.max_exceptions, waiting.state) == (9, JobState.RETRYING)
    assert '"raise snooze return"' in waiting.payload


async def test_jobs_without_limits_write_no_headers(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Stepwise(), backoff=60)
        await outcomes(embedded, 1)
    waiting = await store.driver.jobs.get(job_id)
    assert waiting is not None
    assert Headers.load(waiting.headers).counts is None


@pytest.mark.parametrize("fails", [True, False])
async def test_a_timeout_fails_a_job_that_says_so(store: Store, fails: bool) -> None:
    async with store.worker() as embedded:
        await dispatch(Limited(steps="hang return"), timeout=0.1, fail_on_timeout=fails)
        assert (await outcomes(embedded, 1)) == [F if fails else R]
        assert embedded.of(JobSettled)[0].failure.type == "outbox.errors.JobTimeout"


async def test_a_job_that_has_expired_fails_or_is_dropped(store: Store) -> None:
    failing = await dispatch(Stepwise(steps="return"), expires_after=timedelta(milliseconds=50))
    dropped = await dispatch(Stepwise(steps="return"), expires_after=0.05, on_expired="drop")
    alive = await dispatch(Stepwise(steps="return"), expires_after=3600)
    await until_later(store.driver, 0.1)
    async with store.worker() as embedded:
        await outcomes(embedded, 3)
        ends = {event.job_id: event for event in embedded.of(JobSettled)}
        assert (ends[failing].outcome, ends[dropped].outcome, ends[alive].outcome) == (
            F,
            Outcome.CANCELLED,
            Outcome.COMPLETED,
        )
        assert ends[failing].failure.type == "outbox.errors.JobExpired"
        assert "expires after 0.05 s" in ends[failing].failure.message
        [skipped] = embedded.of(JobSkipped)
        assert skipped.job_id == dropped
    assert set(STEPS) == {alive}, "a job that has expired ran"
    assert await store.driver.failed.get(dropped) is None


async def test_a_job_is_retried_until_a_time_and_not_by_number(store: Store) -> None:
    async with store.worker(max_tries=2) as embedded:
        await dispatch(Stepwise(steps="raise raise raise return"), retry_until=3600)
        assert await outcomes(embedded, 4) == [R, R, R, Outcome.COMPLETED]
        await dispatch(Stepwise(steps="raise"), retry_until=timedelta(hours=1), max_tries=2)
        assert (await outcomes(embedded, 6))[4:] == [R, F]
        await dispatch(Stepwise(steps="raise"), retry_until=30, backoff=60)
        assert (await outcomes(embedded, 7))[6:] == [F]
        assert embedded.of(JobSettled)[6].failure.type == "ValueError"
        await dispatch(Stepwise(steps="raise"), retry_until=datetime.now(UTC) - timedelta(days=1))
        assert (await outcomes(embedded, 8))[7:] == [F], "the first attempt runs, and is the last"


async def test_no_attempt_begins_after_the_time(store: Store) -> None:
    async with store.worker() as embedded:
        job_id = await dispatch(Stepwise(steps="postpone return"), retry_until=2.0)
        assert await outcomes(embedded, 2) == [Outcome.RELEASED, F]
        failure = embedded.of(JobSettled)[1].failure
        assert failure.type == "outbox.errors.AttemptsExhausted"
        assert "its retry_until has passed" in failure.message
        assert STEPS[job_id] == ["return"]
