"""How long a job waits for an idle worker, and for one that is at half of what it can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks import job_counters
from benchmarks.filling import Fill, fill
from benchmarks.jobs import Stamped
from benchmarks.latency import measure
from benchmarks.percentiles import percentile
from benchmarks.programs import Programs, start_workers
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store
from outbox import dispatch_many

_PORTIONS_PER_SECOND = 100


async def _idle(site: Site) -> Sample:
    found = await measure(site.store.url, jobs=site.sizes.latencies)
    return Sample(
        {f"p{percent} ms": percentile(found.after_commit, percent) for percent in (50, 95, 99)}
        | {"p50 ms, COMMIT included": percentile(found.with_commit, 50)}
    )


async def _busy(site: Site) -> Sample:
    """Jobs arrive a hundred times a second, as many as make half of the rate at which a backlog was just drained.

    Dispatcher, worker and server share the machine, so the half is one of a rate that was measured without the first.
    """
    async with Programs(site.directory) as programs, site.store.in_use():
        await fill(site.store, Fill(site.sizes.drain))
        await start_workers(programs, site.store, 1, "--concurrency", "100")
        drained = await programs.ran(site.sizes.drain)
        portion = max(1, round(drained.rate / 2 / _PORTIONS_PER_SECOND))
        begun = time.monotonic()
        count = round(site.sizes.mixed_seconds * _PORTIONS_PER_SECOND)
        for number in range(count):
            await asyncio.sleep(begun + number / _PORTIONS_PER_SECOND - time.monotonic())
            await dispatch_many(Stamped(made=time.monotonic()) for _ in range(portion))
        seconds = time.monotonic() - begun
        backlog = site.sizes.drain + count * portion - job_counters.counted(programs.counter_files)
        total = await programs.ran(site.sizes.drain + count * portion)
    delays = {f"p{percent} ms": 1_000 * percentile(total.delays, percent) for percent in (50, 95, 99)}
    return Sample({"jobs/s": count * portion / seconds, "left at the end": backlog, **delays})


def _idle_variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("woken by what --wake auto finds", _idle)]


def _busy_variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("1 worker", _busy)]


LATENCY = Scenario(
    "latency", "Latency of an idle worker: from the commit's return to the handler, one job every 50 ms", _idle_variants
)
LATENCY_BUSY = Scenario(
    "latency-at-half", "Latency at half of capacity: from making a job to its handler", _busy_variants
)
