"""Attempts run by an executor, as a worker runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from outbox.drivers.values import Claim
from outbox.job import Job
from outbox.middleware.thread_call import Threads
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.settings import WorkerOptions
from outbox.settlement import Settlement
from tests.unit.runtime.memory import Recorder, claim_of

CANCEL_STEPS = (0.02, 0.02)


class Bench:
    """Runs attempts as a consumer does, and keeps what they ended with."""

    def __init__(self, threads: Threads, cancel_steps: Sequence[float] = CANCEL_STEPS) -> None:
        self.recorder = Recorder()
        self.executor = Executor(
            WorkerOptions(max_tries=3, timeout=30, backoff=(7.0,)),
            threads,
            self.recorder.events,
            cancel_steps=cancel_steps,
        )
        self.ended: list[Attempt] = []

    def begin(self, claim: Claim) -> tuple[Attempt, asyncio.Task[None]]:
        attempt = Attempt(claim, "memory", self.ended.append)

        async def run() -> None:
            attempt.end(await self.executor.run(attempt))

        return attempt, asyncio.create_task(run())

    async def run(self, job: Job, **claim: Any) -> Settlement | None:
        attempt, task = self.begin(claim_of(job, **claim))
        await task
        assert self.ended == [attempt]
        self.ended.clear()
        return attempt.settlement


def failure_of(settlement: Settlement | None) -> tuple[str, str]:
    assert settlement is not None
    assert settlement.failure is not None
    return settlement.failure.type, settlement.failure.message
