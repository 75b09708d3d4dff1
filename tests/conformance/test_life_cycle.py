"""The life of jobs as a state machine, against a model, on a real store.

Time stands still in it: a delay or a lease is either nothing or an hour, so that the model knows what is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from outbox.drivers.base import Driver
from outbox.drivers.values import Claim, JobState
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement
from tests.conformance.conftest import DriverFactory
from tests.conformance.jobs import FAILURE, envelope

T = TypeVar("T")
HOUR = 3600.0
QUEUES = ("a", "b")
ENDS: dict[str, Callable[[Fence], Settlement]] = {
    "completed": Settlement.completed,
    "cancelled": Settlement.cancelled,
    "failed": lambda fence: Settlement.failed(fence, FAILURE),
    "retried": lambda fence: Settlement.retried(fence, 0, FAILURE),
    "retried later": lambda fence: Settlement.retried(fence, HOUR, FAILURE),
    "released": Settlement.released,
    "snoozed": Settlement.snoozed,
}


@dataclass
class Known:
    """What the model knows of a live job."""

    queue: str
    priority: int
    due: bool
    attempts: int = 0
    token: bytes | None = None
    """Of the last claim, until the job is settled; `held` says whether its lease is live."""
    held: bool = False
    error: str | None = None

    @property
    def state(self) -> JobState:
        waiting = JobState.RETRYING if self.error else JobState.DELAYED
        return JobState.RESERVED if self.held else JobState.READY if self.due else waiting


@dataclass
class Model:
    live: dict[JobId, Known] = field(default_factory=dict)
    failed: dict[JobId, Known] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)


class LifeCycle(RuleBasedStateMachine):
    driver: ClassVar[Driver]
    runner: ClassVar[asyncio.Runner]

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.run(self.empty())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def empty(self) -> None:
        await self.driver.jobs.cancel([job.id for job in await self.driver.jobs.list_jobs(limit=1_000)])
        await self.driver.failed.flush()
        for queue in QUEUES:
            await self.driver.queues.resume(queue)

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 5, 9)),
        delay=st.sampled_from((0.0, HOUR)),
        count=st.integers(1, 3),
    )
    def insert(self, queue: str, priority: int, delay: float, count: int) -> None:
        jobs: list[Envelope] = [envelope(queue=queue, priority=priority, delay=delay) for _ in range(count)]
        self.run(self.driver.jobs.insert(jobs))
        for job in jobs:
            self.model.live[job.id] = Known(queue, priority, due=not delay)

    @rule(
        target=claims,
        queues=st.permutations(QUEUES),
        limit=st.integers(1, 5),
        lease=st.sampled_from((0.0, HOUR)),
        short_jobs=st.booleans(),
    )
    def claim(self, queues: list[str], limit: int, lease: float, short_jobs: bool) -> Any:
        claims = (self.driver.short_jobs if short_jobs else None) or self.driver.jobs
        taken = self.run(claims.claim(queues, limit, lease))
        self.check_order(queues, limit, taken)
        for claim in taken:
            known = self.model.live[claim.fence.job_id]
            assert claim.rescued == (known.token is not None)
            known.attempts += 1
            known.token, known.held, known.due = claim.fence.token, bool(lease), True
            assert claim.attempt == known.attempts
        return multiple(*taken)

    def check_order(self, queues: list[str], limit: int, taken: list[Claim]) -> None:
        for claim in taken:
            known = self.model.live[claim.fence.job_id]
            assert known.state is JobState.READY, "a job was claimed that was held or not due"
            assert known.queue not in self.model.paused
        claimable = [
            known
            for known in self.model.live.values()
            if known.state is JobState.READY and known.queue not in self.model.paused
        ]
        rank = sorted((queues.index(known.queue), known.priority) for known in claimable)
        assert [(queues.index(claim.queue), claim.priority) for claim in taken] == rank[:limit]

    @rule(claim=claims, end=st.sampled_from(sorted(ENDS)))
    def settle(self, claim: Claim, end: str) -> None:
        settlement = ENDS[end](claim.fence)
        settled = self.run(self.driver.jobs.settle([settlement]))
        known = self.model.live.get(claim.fence.job_id)
        if known is None or known.token != claim.fence.token:
            assert settled.stale == (settlement,)
            return
        assert settled.accepted == (settlement,)
        known.token, known.held = None, False
        if end.startswith("retried"):
            known.error = FAILURE.summary
        if end in {"completed", "cancelled", "failed"}:
            del self.model.live[claim.fence.job_id]
            if end == "failed":
                self.model.failed[claim.fence.job_id] = known
        known.due = end != "retried later"
        known.attempts -= end == "snoozed"

    @rule(claim=claims, lease=st.sampled_from((0.0, HOUR)))
    def extend(self, claim: Claim, lease: float) -> None:
        result = self.run(self.driver.jobs.extend([claim.fence], lease))
        known = self.model.live.get(claim.fence.job_id)
        if known is None or known.token != claim.fence.token:
            assert result.lost == {claim.fence}
            return
        assert result.kept == {claim.fence}
        known.held = bool(lease)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.model.live:
            job_id = data.draw(st.sampled_from(sorted(self.model.live)))
            assert self.run(self.driver.jobs.cancel([job_id])) == [job_id]
            del self.model.live[job_id]

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if self.model.failed:
            job_id = data.draw(st.sampled_from(sorted(self.model.failed)))
            assert self.run(self.driver.failed.retry([job_id])) == [job_id]
            known = self.model.failed.pop(job_id)
            self.model.live[job_id] = Known(known.queue, known.priority, due=True)

    @rule(queue=st.sampled_from(QUEUES))
    def clear(self, queue: str) -> None:
        removed = self.run(self.driver.queues.clear(queue))
        gone = [key for key, known in self.model.live.items() if known.queue == queue and not known.held]
        assert removed == len(gone)
        for key in gone:
            del self.model.live[key]

    @rule(queue=st.sampled_from(QUEUES))
    def pause_or_resume(self, queue: str) -> None:
        if queue in self.model.paused:
            assert self.run(self.driver.queues.resume(queue))
            self.model.paused.remove(queue)
        else:
            assert self.run(self.driver.queues.pause(queue))
            self.model.paused.add(queue)

    @invariant()
    def the_store_is_what_the_model_says(self) -> None:
        live = {
            job.id: (job.queue, job.priority, job.attempts, job.state, job.last_error)
            for job in self.run(self.driver.jobs.list_jobs())
        }
        assert live == {
            key: (known.queue, known.priority, known.attempts, known.state, known.error)
            for key, known in self.model.live.items()
        }
        failed = {job.id: (job.queue, job.attempts) for job in self.run(self.driver.failed.page())}
        assert failed == {key: (known.queue, known.attempts) for key, known in self.model.failed.items()}


@pytest.mark.timeout(900)
def test_the_life_of_jobs(driver_factory: DriverFactory) -> None:
    with asyncio.Runner() as runner:
        driver = driver_factory()
        LifeCycle.driver, LifeCycle.runner = driver, runner
        try:
            run_state_machine_as_test(
                LifeCycle,
                settings=settings(
                    max_examples=settings.default.max_examples // 4,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    derandomize=True,
                ),
            )
        finally:
            runner.run(driver.close())
