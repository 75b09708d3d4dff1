"""How fast a queue that was filled beforehand is drained, beside loops that do it without outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.filling import Fill, fill
from benchmarks.programs import ProgramFailedError, Programs, start_workers
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store

RATE = "jobs/s"


@dataclass(frozen=True, slots=True)
class Shape:
    """So many processes, each with so many jobs at once."""

    processes: int
    concurrency: int

    def __str__(self) -> str:
        plural = "es" if self.processes > 1 else ""
        return f"{self.processes} process{plural} of {self.concurrency}"


SHAPES = (Shape(1, 100), Shape(1, 400), Shape(2, 100), Shape(2, 400), Shape(2, 1_000))

_COMMITS = {"one": "two", "two": "one"}
"""Commits per batch of a bare loop, and the other way."""


async def _outbox(site: Site, shape: Shape) -> Sample:
    await fill(site.store, Fill(site.sizes.drain))
    return await drained(site, shape, site.sizes.drain)


async def drained(site: Site, shape: Shape, jobs: int, environment: Mapping[str, str] | None = None) -> Sample:
    """Drain the ``jobs`` that are in the queue, by workers with this ``environment``. The queue is paused until every
    worker is at work, so that the start of processes is not measured."""
    driver = site.store.driver()
    await driver.queues.pause("default")
    async with Programs(site.directory) as programs:
        flags = ("--concurrency", str(shape.concurrency), "--sleep", "0.05")
        await start_workers(programs, site.store, shape.processes, *flags, environment=environment)
        await driver.queues.resume("default")
        total = await programs.ran(jobs)
    counted = await driver.queues.counts()
    left = sum(
        each.ready + each.delayed + each.retrying + each.reserved + each.failed + each.parked for each in counted
    )
    await driver.close()
    if left:
        raise ProgramFailedError(f"all jobs have run, and {left} are still there")
    return Sample({RATE: total.rate})


async def _bare(site: Site, shape: Shape, commits: str) -> Sample:
    await fill(site.store, Fill(site.sizes.drain))
    async with Programs(site.directory) as programs:
        for _ in range(shape.processes):
            arguments = ("-m", "benchmarks.bare", site.store.url, str(shape.concurrency), commits)
            await programs.start(*arguments, environment={}, talks=True)
        for process in programs.processes:
            assert process.stdout is not None
            if not await process.stdout.readline():
                raise ProgramFailedError("a bare loop did not start")
        for process in programs.processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        total = await programs.ran(site.sizes.drain)
        await asyncio.gather(*(process.wait() for process in programs.processes))
    return Sample({RATE: total.rate})


def _variants(store: Store, _: Sizes) -> Sequence[Variant]:
    if store.is_redis:
        return [Variant(f"outbox, {shape}", partial(_outbox, shape=shape)) for shape in SHAPES]
    # The quicker way. On MySQL, a claim in the transaction that has just deleted jobs walks over them.
    commits = "two" if store.kind == "mysql" else "one"
    variants = []
    for shape in SHAPES:
        bare = f"bare, {shape}"
        variants.append(Variant(f"outbox, {shape}", partial(_outbox, shape=shape), bare))
        variants.append(Variant(bare, partial(_bare, shape=shape, commits=commits)))
    other, largest = _COMMITS[commits], SHAPES[-1]
    name = f"bare, {largest}, {other} commit{'s' if other == 'two' else ''} per batch"
    return [*variants, Variant(name, partial(_bare, shape=largest, commits=other))]


DRAIN = Scenario("drain", "Drain a full queue of no-op jobs", _variants, compared=RATE)
