"""How one attempt ends, by itself."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import Backoff, Job
from outbox.errors import AttemptsExhausted, ConfigurationError, InvalidJob, JobFailed, JobTimeout
from outbox.testing import perform, sync


class Decide(Job):
    name = "perform.Decide"
    queue = "decisions"
    max_tries = 3
    backoff = Backoff([5, 50])

    how: str
    seen: list[str] = Field(default_factory=list)

    async def handle(self) -> None:
        context = self.context
        self.seen.append(f"{context.queue} {context.attempt}/{context.max_tries} on {context.connection}")
        match self.how:
            case "release":
                context.release(30)
            case "snooze":
                context.snooze(60)
            case "fail":
                context.fail("no such order")
            case "delete":
                context.delete()
            case "raise":
                raise ValueError("broken")
            case "hang":
                await asyncio.Event().wait()


class Hangs(Decide):
    name = "perform.Hangs"
    timeout = 0.2

    how: str = "hang"


class Transactional(Job):
    name = "perform.Transactional"

    async def handle(self, session: AsyncSession) -> None: ...


class InThread(Job):
    name = "perform.InThread"

    seen: list[str] = Field(default_factory=list)

    def handle(self) -> None:
        self.seen.append(threading.current_thread().name)


async def test_a_job_that_returns_is_completed() -> None:
    ended = await perform(Decide(how="return"), attempt=2, queue="other")
    assert ended.completed
    assert ended.error is None
    assert not any([ended.failed, ended.deleted, ended.released, ended.snoozed, ended.retried])
    assert isinstance(ended.job, Decide)
    assert ended.job.seen == ["other 2/3 on database"]


async def test_a_context_tells_what_it_was_told() -> None:
    released = await perform(Decide(how="release"))
    assert released.released
    assert released.released(30)
    assert not released.released(31)
    assert released.released.delay == 30
    assert not released.completed

    snoozed = await perform(Decide(how="snooze"))
    assert snoozed.snoozed(60)
    assert not snoozed.released(60)
    assert (await perform(Decide(how="delete"))).deleted

    failed = await perform(Decide(how="fail"))
    assert failed.failed
    assert isinstance(failed.error, JobFailed)
    assert "no such order" in repr(failed)


async def test_a_job_that_raises_is_retried_until_its_last_attempt() -> None:
    second = await perform(Decide(how="raise"), attempt=2)
    assert second.retried(50)
    assert not second.failed
    assert isinstance(second.error, ValueError)
    last = await perform(Decide(how="raise"), attempt=3)
    assert last.failed
    assert not last.retried
    assert isinstance(last.error, ValueError)
    assert isinstance((await perform(Decide(how="release"), attempt=3)).error, AttemptsExhausted)


async def test_the_timeout_of_a_job_counts() -> None:
    ended = await perform(Hangs())
    assert ended.retried(5)
    assert isinstance(ended.error, JobTimeout)


async def test_a_job_is_validated_before_it_runs() -> None:
    job = Decide(how="return")
    job.how = 7  # type: ignore[assignment]
    with pytest.raises(InvalidJob):
        await perform(job)


def test_a_test_that_is_not_async_performs_too() -> None:
    ended = sync.perform(InThread())
    assert ended.completed
    assert isinstance(ended.job, InThread)
    assert ended.job.seen == ["outbox-job-1"]


async def test_a_job_that_takes_a_session_is_for_a_drain() -> None:
    with pytest.raises(ConfigurationError, match=r"perform.Transactional: .* drain\(session=…\)"):
        await perform(Transactional())
