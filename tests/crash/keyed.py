"""Ordered jobs, of which some fail at first, and how they ran: judged by what they wrote themselves."""

from __future__ import annotations

import asyncio

from outbox import Job
from tests.support.recorded_jobs import note
from tests.support.worker_processes import Run


class Event(Job):
    ordering_key = "aggregate_id"
    max_tries = 20
    backoff = 0

    aggregate_id: int
    number: int

    async def handle(self) -> None:
        note("begin", self, error=str(self.aggregate_id))
        await asyncio.sleep(0.01)
        if self.number % 7 == 3 and self.context.attempt == 1:
            note("fail", self, error=str(self.aggregate_id))
            raise ValueError("the first attempt fails")
        note("end", self, error=str(self.aggregate_id))


def check_order(runs: list[Run], keys: int, per_key: int) -> None:
    """Every job of every key has ended, none began before the one before it had ended, and none after a later one.

    A worker that stood still for longer than a lease has lost its jobs. What it writes down of their ends when it goes
    on is late, and settles nothing.
    """
    for key in range(keys):
        mine = sorted((run for run in runs if run.error == str(key)), key=lambda run: run.at)
        ended = -1
        attempts: dict[int, int] = {}
        for run in mine:
            if run.what == "begin":
                attempts[run.number] = max(run.attempt, attempts.get(run.number, 0))
            elif run.attempt < attempts[run.number]:
                continue
            assert ended <= run.number <= ended + 1, f"key {key}: {run} when {ended} had ended last"
            if run.what == "end":
                ended = run.number
        assert ended == per_key - 1
