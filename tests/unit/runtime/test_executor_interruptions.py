"""Attempts that are told to stop."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from outbox.envelope import Headers
from outbox.events import JobOverdue
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.options import JobOptions
from outbox.runtime.execution.executor import OVERDUE_DELAY
from outbox.settlement import Outcome, Settlement
from tests.unit.runtime.attempts import CANCEL_STEPS, Bench, failure_of
from tests.unit.runtime.memory import claim_of, until


class Waits(Job):
    """Waits until it is told to stop, and then does as asked."""

    then: str = "raise"
    timeout = 0
    begun: ClassVar[asyncio.Event]

    async def handle(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.then == "raise":
                raise
            if self.then == "release":
                self.context.release(3)
            if self.then == "error":
                raise RuntimeError("because of the cancellation") from None


@pytest.fixture(autouse=True)
def fresh_events() -> None:
    Waits.begun = asyncio.Event()


async def interrupted(bench: Bench, reason: Interruption, then: str = "raise") -> Settlement | None:
    attempt, task = bench.begin(claim_of(Waits(then=then)))
    await Waits.begun.wait()
    attempt.interrupt(reason)
    await task
    return attempt.settlement


@pytest.mark.parametrize("then", ["raise", "return", "error"])
async def test_shutdown_hands_the_job_back_whatever_its_handler_makes_of_it(bench: Bench, then: str) -> None:
    settlement = await interrupted(bench, Interruption.SHUTDOWN, then)
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.SNOOZED, 0)


@pytest.mark.parametrize("then", ["raise", "return", "error"])
async def test_a_timeout_fails_the_attempt_whatever_its_handler_makes_of_it(bench: Bench, then: str) -> None:
    settlement = await interrupted(bench, Interruption.TIMEOUT, then)
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert failure_of(settlement)[0] == "outbox.errors.JobTimeout"


@pytest.mark.parametrize("then", ["raise", "return", "error", "release"])
async def test_nothing_is_written_for_a_lost_lease(bench: Bench, then: str) -> None:
    assert await interrupted(bench, Interruption.LEASE_LOST, then) is None


async def test_a_job_whose_store_is_away_is_handed_back_later(bench: Bench) -> None:
    settlement = await interrupted(bench, Interruption.UNREACHABLE)
    assert settlement is not None
    assert settlement.outcome is Outcome.SNOOZED


async def test_a_decision_made_while_stopping_counts(bench: Bench) -> None:
    settlement = await interrupted(bench, Interruption.SHUTDOWN, "release")
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RELEASED, 3)


async def test_a_job_that_is_told_to_stop_before_it_begins_does_not_begin(bench: Bench) -> None:
    attempt, task = bench.begin(claim_of(Waits()))
    attempt.interrupt(Interruption.SHUTDOWN)
    await task
    assert not Waits.begun.is_set()
    assert attempt.settlement is not None
    assert attempt.settlement.outcome is Outcome.SNOOZED


async def test_a_job_whose_lease_has_ended_before_it_begins_is_handed_back(bench: Bench) -> None:
    attempt, task = bench.begin(claim_of(Waits(), lease=0))
    await task
    assert not Waits.begun.is_set()
    assert attempt.interruption is Interruption.NOT_BEGUN
    assert attempt.settlement is not None
    assert attempt.settlement.outcome is Outcome.SNOOZED


async def test_a_lost_lease_goes_before_an_earlier_reason(bench: Bench) -> None:
    attempt, task = bench.begin(claim_of(Waits()))
    await Waits.begun.wait()
    attempt.interrupt(Interruption.SHUTDOWN)
    attempt.interrupt(Interruption.LEASE_LOST)
    await task
    assert attempt.settlement is None


class Swallows(Job):
    timeout = 0.02
    release: ClassVar[asyncio.Event]
    cancelled: ClassVar[list[str]]

    async def handle(self) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append("told")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Interruption.TIMEOUT, Outcome.RETRIED),
        (Interruption.SHUTDOWN, Outcome.SNOOZED),
        (Interruption.LEASE_LOST, None),
    ],
)
async def test_a_job_that_does_not_stop_is_given_up_and_its_task_goes_on(
    bench: Bench, reason: Interruption, outcome: Outcome | None
) -> None:
    Swallows.release, Swallows.cancelled = asyncio.Event(), []
    attempt, task = bench.begin(claim_of(Swallows(), headers=Headers(options=JobOptions(timeout=0.0)).dump()))
    await until(lambda: attempt.started is not None)
    attempt.interrupt(reason)
    (overdue,) = await bench.recorder.wait(JobOverdue)
    assert isinstance(overdue, JobOverdue)
    assert overdue.reason == reason.value
    assert bench.ended == [attempt]
    assert (attempt.settlement.outcome if attempt.settlement else None) is outcome
    if outcome is Outcome.SNOOZED:
        assert attempt.settlement is not None
        assert attempt.settlement.delay == OVERDUE_DELAY
    assert len(Swallows.cancelled) == len(CANCEL_STEPS)
    assert not task.done()
    Swallows.release.set()
    await task
    assert bench.ended == [attempt], "what the handler did after it was given up changes nothing"


async def test_what_a_stopped_job_awaited_before_is_not_seen_as_cancelled_later(bench: Bench) -> None:
    tasks = []

    class Survives(Job):
        timeout = 0.02

        async def handle(self) -> None:
            tasks.append(asyncio.current_task())
            await asyncio.Event().wait()

    await bench.run(Survives())
    assert tasks[0].cancelling() == 0
