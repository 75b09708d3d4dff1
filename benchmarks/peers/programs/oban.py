"""oban on PostgreSQL over psycopg: a hundred jobs at once, their ends written together."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from oban import Oban, worker
from oban.schema import install

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

_LIMIT = 100
_PORTION = 5_000


@worker(queue="default")
class NoOp:
    async def process(self, job: Any) -> None:  # noqa: ARG002 - what oban calls it with
        mine().count()


async def enqueue(count: int) -> None:
    """What PostgreSQL knows about the table stays as it is: oban is slower after ``VACUUM ANALYZE``."""
    pool = await Oban.create_pool(url())
    await install(pool)
    oban = Oban(pool=pool)
    for start in range(0, count, _PORTION):
        numbers = range(start, min(start + _PORTION, count))
        await oban.enqueue_many(NoOp.new({"number": number}) for number in numbers)
    await pool.close()


async def work() -> None:
    pool = await Oban.create_pool(url())
    async with Oban(pool=pool, queues={"default": _LIMIT}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
