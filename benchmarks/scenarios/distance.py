"""A database that takes its time to answer, as one does that is far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.filling import Fill, fill
from benchmarks.programs import Programs, start_workers
from benchmarks.proxy import Proxy, between
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import SQL_SERVERS, Store

_CONCURRENCIES = (100, 400)
_ANSWERS = (0.01, 0.05)
"""Seconds that an answer takes longer."""


@dataclass(frozen=True, slots=True)
class Drained:
    jobs: int
    seconds: float
    round_trips: int

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds

    def in_proportion(self, answer: float) -> float:
        """The rate if every round trip took so much longer, and nothing went on meanwhile."""
        return self.jobs / (self.seconds + self.round_trips * answer)


async def _measure(site: Site, concurrency: int, answer: float) -> Sample:
    """Once without the delay and once with it, through the same proxy."""
    async with between(site.store.url) as proxy:
        near = await _drain(site, proxy, concurrency, 0.0)
        site.store.clear()
        far = await _drain(site, proxy, concurrency, answer)
    return Sample(
        {
            "jobs/s, no delay": near.rate,
            "jobs/s": far.rate,
            "part that is left": far.rate / near.rate,
            "part left in proportion": near.in_proportion(answer) / near.rate,
            "jobs per round trip, no delay": near.jobs / near.round_trips,
            "jobs per round trip": far.jobs / far.round_trips,
        }
    )


async def _drain(site: Site, proxy: Proxy, concurrency: int, answer: float) -> Drained:
    """The worker is at work before the delay begins."""
    jobs = site.sizes.distant
    await fill(site.store, Fill(jobs))
    driver = site.store.driver()
    await driver.queues.pause("default")
    proxy.delay = 0.0
    async with Programs(site.directory / f"{answer:g}") as programs:
        far_store = replace(site.store, url=proxy.url)
        await start_workers(programs, far_store, 1, "--concurrency", str(concurrency), "--sleep", "0.05")
        proxy.delay, proxy.round_trips = answer / 2, 0
        await driver.queues.resume("default")
        total = await programs.ran(jobs)
        round_trips = proxy.round_trips
        proxy.delay = 0.0
    await driver.close()
    return Drained(jobs, total.last - total.first, round_trips)


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [
        Variant(
            f"answers take {1_000 * answer:.0f} ms longer, 1 process of {concurrency}",
            partial(_measure, concurrency=concurrency, answer=answer),
        )
        for concurrency in _CONCURRENCIES
        for answer in _ANSWERS
    ]


SLOW_DATABASE = Scenario(
    "pressure-slow-database",
    "Drain a full queue of no-op jobs on a database that answers late",
    _variants,
    stores=SQL_SERVERS,
)
