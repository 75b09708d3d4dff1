"""Procrastinate with locks: jobs of a key one at a time, in their order."""

from __future__ import annotations

import sys

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.job_counters import mine
from benchmarks.peers.programs.where import KEYS, url

_CONCURRENCY = 10

app = App(connector=PsycopgConnector(conninfo=url()))


@app.task(name="noop")
async def noop(number: int) -> None:  # noqa: ARG001 - the job's payload
    mine().count()


async def enqueue(count: int) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for key in range(KEYS):
            jobs = ({"number": number} for number in range(key, count, KEYS))
            await noop.configure(lock=f"key{key}").batch_defer_async(*jobs)
        await app.connector.execute_query_async("ANALYZE")


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=_CONCURRENCY, delete_jobs="always")


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
