"""What policies cost: dispatching and draining jobs with keys, unique jobs and batches, beside plain jobs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.earlier import BEFORE_POLICIES, missing, unpack
from benchmarks.filling import Fill, fill
from benchmarks.jobs import Keyed
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.scenarios.draining import RATE, Shape, drained
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store
from outbox import dispatch, dispatch_batch, dispatch_many
from outbox.options import DispatchOptions

SHAPE = Shape(2, 400)
_PORTION = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs of one policy."""

    name: str
    keys: int = 1
    options: DispatchOptions = field(default_factory=DispatchOptions)
    fewer: int = 1
    """How many times fewer jobs there are than in other drains."""
    batch: bool = False

    async def fill(self, site: Site) -> int:
        """Dispatch the jobs of a drain; return how many."""
        count = site.sizes.drain // self.fewer
        async with site.store.in_use():
            await self.dispatch(count)
        return count

    async def dispatch(self, count: int) -> None:
        if self.batch:
            await dispatch_batch(self.jobs(range(count)))
            return
        for start in range(0, count, _PORTION):
            await dispatch_many(self.jobs(range(start, min(start + _PORTION, count))), **self.options)

    def jobs(self, numbers: Sequence[int]) -> Iterator[Keyed]:
        return (Keyed(number=number, key=number % self.keys) for number in numbers)


PLAIN = Load("plain jobs")
_UNIQUE = Load("unique jobs, no two alike", options={"unique": ["number"]})
# One after the other: a claim and a settlement for each job.
_ONE_KEY = Load("1 ordering key", options={"ordering_key": "key"}, fewer=50)
KEYED = (
    Load("1,000 concurrency keys, limit 10", 1_000, {"concurrency_key": "key", "concurrency_limit": 10}),
    Load("1,000 ordering keys", 1_000, {"ordering_key": "key"}),
)
DRAINS = (
    PLAIN,
    _ONE_KEY,
    Load("100 ordering keys", 100, {"ordering_key": "key"}, fewer=5),
    Load("100,000 ordering keys", 100_000, {"ordering_key": "key"}),
    *KEYED,
    Load("100 fair keys", 100, {"fair_key": "key"}),
    _UNIQUE,
    Load("members of a batch", batch=True),
)


def _beside_plain(measure: Callable[[Site, Load], Awaitable[Sample]], loads: Sequence[Load]) -> Sequence[Variant]:
    return [Variant(load.name, partial(measure, load=load), None if load is PLAIN else PLAIN.name) for load in loads]


async def _drain(site: Site, load: Load) -> Sample:
    return await drained(site, SHAPE, await load.fill(site))


def _drains(_: Store, __: Sizes) -> Sequence[Variant]:
    return _beside_plain(_drain, DRAINS)


async def _dispatch(site: Site, load: Load) -> Sample:
    """One by one, each stored when the call returns."""
    count = site.sizes.dispatches
    jobs = list(load.jobs(range(1, count + 1)))
    async with site.store.in_use():
        await dispatch(Keyed(number=0, key=0), **load.options)
        begun = time.perf_counter()
        for job in jobs:
            await dispatch(job, **load.options)
        return Sample({RATE: count / (time.perf_counter() - begun)})


def _dispatches(_: Store, __: Sizes) -> Sequence[Variant]:
    loads = (
        PLAIN,
        _UNIQUE,
        Load("unique jobs, all alike", options={"unique": ["key"]}),
        Load("unique jobs, all alike, the newest replaces", options={"unique": ["key"], "on_conflict": "replace"}),
        Load("jobs with an ordering key", 1_000, {"ordering_key": "key"}),
        Load("jobs with a concurrency key", 1_000, {"concurrency_key": "key"}),
    )
    return _beside_plain(_dispatch, loads)


async def _dispatch_many(site: Site, load: Load) -> Sample:
    count = site.sizes.bulk
    async with site.store.in_use():
        await dispatch(Keyed(number=count, key=0))
        begun = time.perf_counter()
        await load.dispatch(count)
        return Sample({RATE: count / (time.perf_counter() - begun)})


def _many(_: Store, __: Sizes) -> Sequence[Variant]:
    loads = (PLAIN, _UNIQUE, Load("jobs with an ordering key", 1_000, {"ordering_key": "key"}), DRAINS[-1])
    return _beside_plain(_dispatch_many, loads)


async def _none(site: Site, shape: Shape, commit: str | None) -> Sample:
    await fill(site.store, Fill(site.sizes.drain))
    environment = None if commit is None else unpack(commit, site.directory / "earlier")
    return await drained(site, shape, site.sizes.drain, environment)


def _nones(_: Store, __: Sizes) -> Sequence[Variant]:
    """Both on the tables of this version."""
    variants = []
    for shape in (Shape(1, 100), Shape(2, 400)):
        before = f"before there were policies, {shape}"
        variants.append(Variant(f"this version, {shape}", partial(_none, shape=shape, commit=None), before))
        variants.append(Variant(before, partial(_none, shape=shape, commit=BEFORE_POLICIES)))
    return variants


POLICIES = (
    Scenario(
        "policies-none",
        "Drain jobs without a policy, beside the version before there were policies",
        _nones,
        compared=RATE,
        stores=DATABASES,
        missing=partial(missing, BEFORE_POLICIES),
    ),
    Scenario(
        "policies-dispatch",
        "Dispatch jobs with policies one by one",
        _dispatches,
        compared=RATE,
        stores=DATABASES,
    ),
    Scenario(
        "policies-dispatch-many",
        f"Dispatch jobs with policies, {_PORTION:,} per call",
        _many,
        compared=RATE,
        stores=DATABASES,
    ),
    Scenario("policies-drain", f"Drain jobs with policies, {SHAPE}", _drains, compared=RATE, stores=DATABASES),
)
