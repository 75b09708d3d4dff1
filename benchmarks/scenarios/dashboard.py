"""What operators read, with three million jobs in the tables; and what it costs a worker to keep metrics for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import httpx

from benchmarks import processor_times
from benchmarks.filling import Fill, fill, fill_failed
from benchmarks.percentiles import percentile
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.scenarios.draining import RATE, SHAPES, drained
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store
from outbox.drivers.base import Driver
from outbox.drivers.metrics import Activity
from outbox.settings import Settings
from outbox.settlement import Outcome
from outbox.web import Viewer, dashboard
from tests.support.many_rows import MOST_READ, rows_read

_JOBS, _DELAYED, _FAILED = 2_500_000, 400_000, 100_000
_GROUPS = 40
_QUICK_SHARE = 50
_READINGS, _CLASSES = 100, 20
_QUICK_READINGS = 5

_PAGES = {
    "overview": "/",
    "queues": "/queues",
    "one queue": "/queues/q0",
    "jobs": "/jobs",
    "ready jobs": "/jobs?queue=q0&state=ready",
    "delayed jobs": "/jobs?queue=q0&state=delayed",
    "jobs of a name": "/jobs?name=benchmarks.None",
    "running jobs": "/jobs?state=running",
    "finished jobs": "/jobs?state=finished",
    "groups of failures": "/failures",
    "a group of failures": f"/failures/jobs?name=benchmarks.NoOp&group={1:016x}",
    "failed jobs": "/failures/jobs",
    "failed jobs with an error": "/failures/jobs?error=nothing",
    "job classes": "/classes",
    "one job class": "/classes/one?name=job+1",
    "workers": "/workers",
    "schedules": "/schedules",
    "keys and limits": "/keys",
    "batches": "/batches",
    "operations": "/operations",
    "preview of an operation": "/operations/new?verb=cancel&queue=q0",
    "health": "/health",
}


async def _measure(site: Site) -> Sample:
    share = _QUICK_SHARE if site.sizes.small else 1
    await fill(site.store, Fill(_JOBS // share, queues=4, priorities=3))
    await fill(site.store, Fill(_DELAYED // share, queues=4, delay=86_400, first=_JOBS))
    fill_failed(site.store, _FAILED // share, groups=_GROUPS)
    driver = site.store.driver()
    await _write_metrics(driver)
    await driver.close()
    async with _browser(site.store) as client:
        readings = _QUICK_READINGS if site.sizes.small else _READINGS
        taken = {name: await _taken(client, path, readings) for name, path in _PAGES.items()}
    return Sample(
        {
            f"{name}, {figure}": value
            for name, path in _PAGES.items()
            for figure, value in (await _figures(site.store, path, taken[name])).items()
        }
    )


async def _write_metrics(driver: Driver) -> None:
    """The rows of an hour, of one worker, and a count of all jobs."""
    if driver.metrics is None:
        return
    activity = _activity()
    rows = {(f"q{number % 4}", f"job {number}"): activity for number in range(_CLASSES)}
    for _ in range(60):
        await driver.metrics.write(rows)
    await driver.metrics.upkeep()


def _activity() -> Activity:
    activity = Activity()
    numbers = range(1_000)
    waits, runs = ([number / divisor for number in numbers] for divisor in (100, 1_000))
    activity.add({Outcome.COMPLETED: len(numbers)}, waits, runs)
    return activity


def _browser(store: Store) -> httpx.AsyncClient:
    """Of a dashboard in which no view has read anything yet."""
    app = dashboard(lambda _: Viewer("bench"), settings=Settings(database_url=store.url), time_limit=30)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def _figures(store: Store, path: str, taken: Sequence[float]) -> dict[str, float]:
    """Of one page. Rows are those that the server reads for its first view, where it counts them."""
    found = {"p50 ms": percentile(taken, 50), "p95 ms": percentile(taken, 95)}
    if not store.is_sql_server:
        return found
    async with _browser(store) as client:
        with rows_read() as read:
            (await client.get(path)).raise_for_status()
    return {**found, "rows read": read.total, "rows at most": MOST_READ}


async def _taken(client: httpx.AsyncClient, path: str, readings: int) -> list[float]:
    """Milliseconds of each answer, without the first."""
    taken = []
    for number in range(readings + 1):
        begun = time.perf_counter()
        response = await client.get(path)
        response.raise_for_status()
        if number:
            taken.append((time.perf_counter() - begun) * 1_000)
    return taken


def _pages(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("2,500,000 ready, 400,000 delayed, 100,000 failed jobs", _measure)]


DASHBOARD = Scenario(
    "dashboard", "Pages of the dashboard, with three million jobs", _pages, stores=DATABASES, once=True, by_part=True
)

_MODULES = {"with metrics": "benchmarks.jobs", "without": "benchmarks.without_metrics"}
_MINUTE = 60.0


async def _drain(site: Site, module: str) -> Sample:
    await fill(site.store, Fill(site.sizes.drain))
    return await drained(site, SHAPES[0], site.sizes.drain, {"OUTBOX_JOBS": module})


async def _share(site: Site) -> Sample:
    """What of the processor time of a draining worker metrics take: in one run, so that nothing drifts in between."""
    sample = await _drain(site, "benchmarks.timed_metrics")
    times = processor_times.read(site.directory)
    written = await _written(site.store)
    # Of what a worker that drains so fast uses in a minute.
    of_rows = written.processor / (_MINUTE * sample.figures[RATE] * times.job)
    return Sample(
        {
            **sample.figures,
            "processor µs a job": times.job * 1_000_000,
            "of them for metrics": times.metrics * 1_000_000,
            "metrics %": 100 * (times.metrics / times.job + of_rows),
        }
    )


async def _write(site: Site) -> Sample:
    """What a worker sends once a minute."""
    written = await _written(site.store)
    return Sample({"p95 ms": percentile(written.milliseconds, 95), "processor ms": written.processor * 1_000})


class _Written(NamedTuple):
    """The INSERTs of the rows of a minute, of 20 job classes."""

    milliseconds: list[float]
    processor: float
    """Seconds of processor time of one."""


async def _written(store: Store) -> _Written:
    driver = store.driver()
    rows = {("default", f"job {number}"): _activity() for number in range(_CLASSES)}
    taken = []
    before = time.process_time()
    for _ in range(_READINGS):
        begun = time.perf_counter()
        if driver.metrics is not None:
            await driver.metrics.write(rows)
        taken.append((time.perf_counter() - begun) * 1_000)
    processor = (time.process_time() - before) / _READINGS
    await driver.close()
    return _Written(taken, processor)


def _costs(_: Store, __: Sizes) -> Sequence[Variant]:
    counted, plain = (Variant(f"drain, {name}", partial(_drain, module=module)) for name, module in _MODULES.items())
    return [
        Variant(counted.name, counted.measure, against=plain.name),
        plain,
        Variant("drain, processor time", _share),
        Variant("the rows of a minute, of 20 job classes", _write),
    ]


METRICS = Scenario("metrics", "What metrics cost a draining worker", _costs, compared=RATE, stores=DATABASES)
