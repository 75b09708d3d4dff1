"""Procrastinate on PostgreSQL over psycopg: ten jobs at once, and finished ones deleted."""

from __future__ import annotations

import sys

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import url

_CONCURRENCY = 10
_PORTION = 10_000

app = App(connector=PsycopgConnector(conninfo=url()))


@app.task(name="noop")
async def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    mine().count()


async def enqueue(count: int) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, count, _PORTION):
            numbers = range(start, min(start + _PORTION, count))
            await noop.batch_defer_async(*({"number": number} for number in numbers))
        await app.connector.execute_query_async("ANALYZE")


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=_CONCURRENCY, delete_jobs="always")


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
