"""Workers that die while they run jobs with a rate: the rate is never exceeded, and every job ends."""

from __future__ import annotations

import asyncio
import random

from outbox.envelope import serialize_many
from tests.crash.harness import FLAGS, DatabaseHarness
from tests.crash.rated import Call, check_rate

JOBS, ENDS_PER_DEATH = 100, 25
SLACK = 0.5


async def test_a_rate_holds_whatever_workers_die(harness: DatabaseHarness) -> None:
    harness.workers.modules = "tests.crash.rated"
    await harness.driver.jobs.insert(serialize_many([Call(number=number) for number in range(JOBS)]))
    chance = random.Random(7)
    workers = [await harness.workers.started("--concurrency", "4", *FLAGS) for _ in range(3)]
    for death in range(1, JOBS // ENDS_PER_DEATH):
        await harness.oracle.wait("end", death * ENDS_PER_DEATH)
        victim = workers.pop(chance.randrange(len(workers)))
        await victim.kill()
        workers.append(await harness.workers.started("--concurrency", "4", *FLAGS))
    await harness.all_done()
    async with asyncio.timeout(120):
        for worker in workers:
            assert await worker.terminate() == 0
    runs = harness.oracle.runs()
    check_rate(runs, SLACK)
    assert len({run.id for run in runs if run.what == "end"}) == JOBS
