"""``python -m benchmarks.contention DATABASE_URL [short]``: how often 16 claimers wait for each other.

Each claims 50 jobs, settles them, and claims again, until 20,000 are gone; the server, MySQL or MariaDB, counts the
waits. Nothing else should be going on. outbox's tables are made if they are missing. With ``short_jobs``, claims say
that they are, and MySQL holds jobs where they are. For docs/decisions/0002-holding-a-job.md it was run with
`Dialect.reserve` as it was, and again with one that wrote `reserved_until` only, on both servers.
"""

from __future__ import annotations

import asyncio
import sys
import time

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settlement import Settlement

CLAIMERS, JOBS, BATCH = 16, 20_000, 50


async def drain(driver: DatabaseDriver, *, short_jobs: bool) -> int:
    done = empty = 0
    while empty < 3:
        claims = await (driver.short_jobs if short_jobs else driver.jobs).claim(["default"], BATCH, 60)
        empty = 0 if claims else empty + 1
        done += len((await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])).accepted)
    return done


async def row_lock_waits(url: str) -> int:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(outbox.metadata.create_all)
        row = (await connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")).one()
    await engine.dispose()
    return int(row[1])


async def main(url: str, *, short_jobs: bool) -> None:
    before = await row_lock_waits(url)
    drivers = [DatabaseDriver(url, pool_size=1) for _ in range(CLAIMERS)]
    refused: list[str] = []
    for driver in drivers:

        @event.listens_for(driver._database.engine.sync_engine, "handle_error")  # noqa: SLF001 - counts what is retried
        def note(context: object) -> None:
            refused.append(str(getattr(context, "original_exception", "")))

    await drivers[0].jobs.insert(
        [Envelope(new_job_id(), "default", "benchmarks.Nothing", 5, "{}") for _ in range(JOBS)]
    )
    begun = time.perf_counter()
    done = sum(await asyncio.gather(*(drain(driver, short_jobs=short_jobs) for driver in drivers)))
    seconds = time.perf_counter() - begun
    for driver in drivers:
        await driver.close()
    deadlocks = sum("1213" in error for error in refused)
    print(
        f"{done:,} jobs in {seconds:.1f} s, {await row_lock_waits(url) - before} row lock waits, {deadlocks} deadlocks"
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], short_jobs="short" in sys.argv[2:]))
