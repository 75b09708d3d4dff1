"""Jobs arrive faster than they are run: what that does to the urgent ones, and to the worker's memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks import job_counters
from benchmarks.flood import GROWTH
from benchmarks.jobs import Stamped
from benchmarks.percentiles import percentile
from benchmarks.programs import Programs, start_workers
from benchmarks.resident import mib
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store
from outbox import dispatch

_URGENT_PER_SECOND = 10
_URGENT = 0


async def _measure(site: Site) -> Sample:
    """A single worker counter_files, so that waiting times are in the order in which jobs ran."""
    memory: list[float] = []
    async with Programs(site.directory) as programs, site.store.in_use():
        await start_workers(programs, site.store, 1, "--concurrency", "100")
        worker = programs.processes[0].pid
        length = str(site.sizes.overload_seconds)
        flood = await programs.start("-m", "benchmarks.flood", length, environment=site.store.environment())
        begun = time.monotonic()
        while flood.returncode is None:
            await dispatch(Stamped(made=time.monotonic()), priority=_URGENT)
            memory.append(mib(worker, "status", "VmRSS"))
            programs.check()
            await asyncio.sleep(begun + len(memory) / _URGENT_PER_SECOND - time.monotonic())
        seconds = time.monotonic() - begun
        total = job_counters.total(programs.counter_files)
        left = await _left(site.store)
    delays, resident = Quarters.of(total.delays), Quarters.of(memory)
    return Sample(
        {
            "run/s": total.count / seconds,
            "left at the end": left,
            "p50 ms, first quarter": 1_000 * percentile(delays.first, 50),
            "p50 ms, last": 1_000 * percentile(delays.last, 50),
            "p99 ms, first quarter": 1_000 * percentile(delays.first, 99),
            "p99 ms, last": 1_000 * percentile(delays.last, 99),
            "MiB, first quarter": max(resident.first),
            "MiB, last": max(resident.last),
        }
    )


@dataclass(frozen=True, slots=True)
class Quarters:
    """Of what was measured one after the other, the first and the last."""

    first: Sequence[float]
    last: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        quarter = max(1, len(values) // 4)
        return cls(values[:quarter], values[-quarter:])


async def _left(store: Store) -> int:
    driver = store.driver()
    left = sum(counts.ready for counts in await driver.queues.counts())
    await driver.close()
    return left


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant(f"a backlog that grows by {GROWTH:,} a second, 1 worker", _measure)]


OVERLOAD = Scenario(
    "pressure-overload",
    "More jobs than can be run: how long urgent ones take, from making a job to its handler, and memory",
    _variants,
    stores=(*DATABASES, "redis"),
    once=True,
)
