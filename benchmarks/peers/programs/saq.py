"""SAQ on Redis: twenty jobs at once, on uvloop, of which its command knows nothing."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from saq import Queue

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

_AT_ONCE = 50

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(url())


async def noop(context: Any, *, number: int) -> None:  # noqa: ARG001 - what SAQ calls it with
    mine().count()


settings = {"queue": queue, "functions": [("noop", noop)], "concurrency": 20}


async def enqueue(count: int) -> None:
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, count))
        await asyncio.gather(*(queue.enqueue("noop", number=number) for number in numbers))
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
