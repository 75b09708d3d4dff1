"""Past one worker: many of them on one server, one of them on many databases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from sqlalchemy import make_url, text

from benchmarks.filling import Fill, fill
from benchmarks.programs import ProgramFailedError, Programs, start_workers
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import SQL_SERVERS, Store
from tests.servers import Server, databases

RATE = "jobs/s"
_WORKERS = (1, 2, 4, 8, 16)
_CONCURRENCY = 10
_DATABASES = ((1, 100), (2, 100), (4, 100), (4, 400))
"""So many databases, and so many jobs at once."""


async def _measure_workers(site: Site, workers: int) -> Sample:
    """Small workers, so that what is counted is claims and commits, and not how large batches get."""
    jobs = site.sizes.drain // 4
    await fill(site.store, Fill(jobs))
    driver = site.store.driver()
    await driver.queues.pause("default")
    async with Programs(site.directory) as programs:
        await start_workers(programs, site.store, workers, "--concurrency", str(_CONCURRENCY), "--sleep", "0.05")
        commits, waits = _counted(site.store)
        await driver.queues.resume("default")
        total = await programs.ran(jobs)
        commits_then, waits_then = _counted(site.store)
    await driver.close()
    seconds = total.last - total.first
    return Sample(
        {
            RATE: total.rate,
            "commits/s": (commits_then - commits) / seconds,
            "jobs per commit": jobs / (commits_then - commits),
            "row lock waits per 1,000 commits": 1_000 * (waits_then - waits) / (commits_then - commits),
        }
    )


def _counted(store: Store) -> tuple[int, int]:
    """Commits and waits for a row, since the server started."""
    with store.sql() as connection:
        query = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_commit', 'Innodb_row_lock_waits')"
        status = {row[0]: int(row[1]) for row in connection.execute(text(query))}
    return status["Com_commit"], status["Innodb_row_lock_waits"]


async def _measure_databases(site: Site, count: int, concurrency: int) -> Sample:
    """The same number of jobs, spread over so many databases, and one worker that drains all of them."""
    jobs = site.sizes.drain // 4 // count
    with ExitStack() as opened:
        stores = [site.store, *(opened.enter_context(_another(site.store)) for _ in range(count - 1))]
        drivers = [store.driver() for store in stores]
        for store, driver in zip(stores, drivers, strict=True):
            await fill(store, Fill(jobs))
            await driver.queues.pause("default")
        others = {f"shop{number}": store for number, store in enumerate(stores[1:], start=1)}
        described = {name: {"driver": "database", "url": store.url} for name, store in others.items()}
        async with Programs(site.directory) as programs:
            await start_workers(
                programs,
                site.store,
                1,
                *(
                    "--connection",
                    ",".join(["database", *others]),
                    "--concurrency",
                    str(concurrency),
                    "--sleep",
                    "0.05",
                ),
                environment={"OUTBOX_CONNECTIONS": json.dumps(described)},
            )
            for driver in drivers:
                await driver.queues.resume("default")
            total = await programs.ran(jobs * count)
        left = [counts for driver in drivers for counts in await driver.queues.counts()]
        for driver in drivers:
            await driver.close()
    if left:
        raise ProgramFailedError(f"all jobs have run, and some are still there: {left}")
    return Sample({RATE: total.rate})


@contextmanager
def _another(store: Store) -> Iterator[Store]:
    """One more database on the server of ``store``, with outbox's tables."""
    server = make_url(store.url).set(database=None).render_as_string(hide_password=False)
    with databases.fresh_database(Server(store.kind, server)) as url:
        other = replace(store, url=url)
        other.clear()
        yield other


def _named(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _workers(_: Store, __: Sizes) -> Sequence[Variant]:
    first = _named(_WORKERS[0], "worker")
    return [
        Variant(_named(count, "worker"), partial(_measure_workers, workers=count), first if count > 1 else None)
        for count in _WORKERS
    ]


def _databases(_: Store, __: Sizes) -> Sequence[Variant]:
    names = [f"{_named(count, 'database')}, {concurrency} jobs at once" for count, concurrency in _DATABASES]
    return [
        Variant(
            name,
            partial(_measure_databases, count=count, concurrency=concurrency),
            names[0] if name != names[0] else None,
        )
        for name, (count, concurrency) in zip(names, _DATABASES, strict=True)
    ]


WORKERS = Scenario(
    "scale-workers",
    f"Drain with ever more worker processes of {_CONCURRENCY} on one server",
    _workers,
    compared=RATE,
    stores=SQL_SERVERS,
)
DATABASES = Scenario(
    "scale-databases",
    "Drain several databases of one server with one worker process",
    _databases,
    compared=RATE,
    stores=SQL_SERVERS,
)
