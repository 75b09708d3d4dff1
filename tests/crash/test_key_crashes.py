"""Workers that die while they run ordered jobs. The oracle writes outside outbox's tables."""

from __future__ import annotations

import asyncio
import random

from outbox.envelope import serialize_many
from tests.crash.harness import FLAGS, DatabaseHarness
from tests.crash.keyed import Event, check_order

KEYS, PER_KEY = 5, 60
ENDS_PER_DEATH = 45


async def test_ordered_jobs_stay_in_order_whatever_workers_die(harness: DatabaseHarness) -> None:
    harness.workers.modules = "tests.crash.keyed"
    jobs = [Event(aggregate_id=key, number=number) for number in range(PER_KEY) for key in range(KEYS)]
    await harness.driver.jobs.insert(serialize_many(jobs))
    chance = random.Random(7)
    workers = [await harness.workers.started("--concurrency", "4", *FLAGS) for _ in range(3)]
    for death in range(1, KEYS * PER_KEY // ENDS_PER_DEATH):
        await harness.oracle.wait("end", death * ENDS_PER_DEATH)
        victim = workers.pop(chance.randrange(len(workers)))
        await victim.kill()
        workers.append(await harness.workers.started("--concurrency", "4", *FLAGS))
    await harness.all_done()
    async with asyncio.timeout(120):
        for worker in workers:
            assert await worker.terminate() == 0
    check_order(harness.oracle.runs(), KEYS, PER_KEY)
    assert len({run.id for run in harness.oracle.runs("end")}) == KEYS * PER_KEY
