"""What operators read, with three million jobs in the tables."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.filling import Fill, fill, fill_failed
from benchmarks.percentiles import percentile
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store
from outbox.drivers.base import Driver
from outbox.drivers.filters import JobFilter
from outbox.drivers.metrics import Activity
from outbox.drivers.values import JobState
from outbox.settlement import Outcome

_JOBS, _DELAYED, _FAILED = 2_500_000, 400_000, 100_000
_QUICK_SHARE = 50
_READINGS, _CLASSES = 100, 20

Reading = Callable[[Driver], Awaitable[object]]

_READ: dict[str, Reading] = {
    "counts": lambda driver: driver.queues.counts(),
    "a page of ready jobs": lambda driver: driver.jobs.page(JobFilter("q0", state=JobState.READY), 50),
    "a page of failed jobs": lambda driver: driver.failed.page(limit=50),
    "workers": lambda driver: driver.workers.all(),
    "metrics of an hour": lambda driver: _metrics(driver),
}


async def _metrics(driver: Driver) -> object:
    return await driver.metrics.points(3_600) if driver.metrics is not None else None


async def _measure(site: Site) -> Sample:
    share = _QUICK_SHARE if site.sizes.small else 1
    await fill(site.store, Fill(_JOBS // share, queues=4, priorities=3))
    await fill(site.store, Fill(_DELAYED // share, queues=4, delay=86_400, first=_JOBS))
    fill_failed(site.store, _FAILED // share)
    driver = site.store.driver()
    try:
        await _write_metrics(driver)
        if driver.metrics is not None:
            await driver.metrics.upkeep()
        figures = {f"{name}, p95 ms": await _p95(driver, read) for name, read in _READ.items()}
    finally:
        await driver.close()
    return Sample(figures)


async def _write_metrics(driver: Driver) -> None:
    """The rows of an hour, of one worker."""
    activity = Activity()
    for number in range(1_000):
        activity.add(Outcome.COMPLETED, number / 100, number / 1_000)
    rows = {(f"q{number % 4}", f"job {number}"): activity for number in range(_CLASSES)}
    for _ in range(60):
        if driver.metrics is not None:
            await driver.metrics.write(rows)


async def _p95(driver: Driver, read: Reading) -> float:
    await read(driver)
    taken = []
    for _ in range(_READINGS):
        begun = time.perf_counter()
        await read(driver)
        taken.append((time.perf_counter() - begun) * 1_000)
    return percentile(taken, 95)


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("2,500,000 ready, 400,000 delayed, 100,000 failed jobs", _measure)]


DASHBOARD = Scenario(
    "dashboard", "What operators read, with three million jobs", _variants, stores=DATABASES, once=True
)
