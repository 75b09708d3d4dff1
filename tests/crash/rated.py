"""Jobs with a rate, and when they began: judged by what they wrote themselves."""

from __future__ import annotations

import asyncio

from outbox import Job
from tests.support.recorded_jobs import note
from tests.support.worker_processes import Run

COUNT, BURST = 20, 3


class Call(Job):
    rate = f"{COUNT}/s"
    burst = BURST
    max_tries = 20

    number: int

    async def handle(self) -> None:
        note("begin", self)
        await asyncio.sleep(0.05)
        note("end", self)


def check_rate(runs: list[Run], slack: float) -> None:
    """No span of time, less the ``slack`` seconds by which a start may be noted late, has more starts than the rate."""
    times = sorted(run.at for run in runs if run.what == "begin")
    for first, start in enumerate(times):
        for number, end in enumerate(times[first:], 1):
            assert number <= BURST + (end - start + slack) * COUNT + 1, f"{number} starts in {end - start:.3f} s"
