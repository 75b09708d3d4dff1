"""Jobs are dispatched one by one while a worker drains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from benchmarks import job_counters
from benchmarks.jobs import Stamped
from benchmarks.percentiles import percentile
from benchmarks.programs import Programs, start_workers
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store
from outbox import dispatch

_DISPATCHERS = (1, 8)


async def _measure(site: Site, dispatchers: int) -> Sample:
    sent = 0

    async def keep_dispatching(until: float) -> None:
        nonlocal sent
        while time.monotonic() < until:
            await dispatch(Stamped(made=time.monotonic()))
            sent += 1

    async with Programs(site.directory) as programs, site.store.in_use():
        await start_workers(programs, site.store, 1, "--concurrency", "100", "--sleep", "0.05")
        begun = time.monotonic()
        await asyncio.gather(*(keep_dispatching(begun + site.sizes.mixed_seconds) for _ in range(dispatchers)))
        seconds = time.monotonic() - begun
        backlog = sent - job_counters.counted(programs.counter_files)
        total = await programs.ran(sent)
    return Sample(
        {
            "dispatched/s": sent / seconds,
            "run/s": (sent - backlog) / seconds,
            "left at the end": backlog,
            "p50 ms": 1_000 * percentile(total.delays, 50),
            "p95 ms": 1_000 * percentile(total.delays, 95),
            "p99 ms": 1_000 * percentile(total.delays, 99),
        }
    )


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [
        Variant(f"{count} dispatcher{'s' if count > 1 else ''}, 1 worker", partial(_measure, dispatchers=count))
        for count in _DISPATCHERS
    ]


MIXED = Scenario("mixed", "Dispatch and drain at the same time; from making a job to its handler", _variants)
