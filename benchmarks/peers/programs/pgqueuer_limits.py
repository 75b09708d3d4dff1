"""PgQueuer with limits: each key is an entrypoint of which ten run at once, as a limit is one of an entrypoint."""

from __future__ import annotations

import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import KEYS, LIMIT, url

_BATCH = 200
_PORTION = 10_000


async def enqueue(count: int) -> None:
    connection = await asyncpg.connect(url())
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for start in range(0, count, _PORTION):
        numbers = range(start, min(start + _PORTION, count))
        names = [f"noop{number % KEYS}" for number in numbers]
        await queries.enqueue(names, [b'{"number": %d}' % number for number in numbers], [0] * len(numbers))
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def work() -> None:
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url())))

    async def noop(job: object) -> None:  # noqa: ARG001 - what PgQueuer calls it with
        mine().count()

    for key in range(KEYS):
        queue.entrypoint(f"noop{key}", concurrency_limit=LIMIT)(noop)
    await queue.run(batch_size=_BATCH)


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
