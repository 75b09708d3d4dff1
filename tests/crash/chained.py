"""A chain whose every job dies twice: before its end is written, and right after."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from outbox import Job
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.values import Settled
from outbox.settlement import Outcome, Settlement
from tests.support.recorded_jobs import note

_settle = DatabaseJobs.settle


class Step(Job):
    name = "crash.chained.Step"
    max_tries = 5

    number: int

    async def handle(self) -> int:
        note("begin", self, error=str(self.context.previous))
        if self.context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number


class Then(Job):
    name = "crash.chained.Then"
    max_tries = 5

    async def handle(self) -> None:
        note("then", self)


async def settle(self: DatabaseJobs, settlements: Sequence[Settlement]) -> Settled:
    settled = await _settle(self, settlements)
    if any(each.outcome is Outcome.COMPLETED for each in settled.accepted):
        os.kill(os.getpid(), signal.SIGKILL)
    return settled


if "RUN_LOG" in os.environ:
    DatabaseJobs.settle = settle  # type: ignore[method-assign]
