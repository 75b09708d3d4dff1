"""taskiq on a Redis stream, the broker of taskiq-redis that acknowledges."""

from __future__ import annotations

import asyncio
import sys

from taskiq_redis import RedisStreamBroker

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

# Workers start after the jobs were enqueued, and read the stream from its beginning.
broker = RedisStreamBroker(url(), consumer_id="0")
_AT_ONCE = 50


@broker.task(task_name="noop")
async def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    mine().count()


async def enqueue(count: int) -> None:
    await broker.startup()
    for start in range(0, count, _AT_ONCE):
        await asyncio.gather(*(noop.kiq(number) for number in range(start, min(start + _AT_ONCE, count))))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
