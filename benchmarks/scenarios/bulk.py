"""``dispatch_many``, the making of the jobs included."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.bare.writing import open_writer
from benchmarks.jobs import NoOp
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store
from outbox import dispatch_many

RATE = "jobs/s"
_ROWS_PER_INSERT = 1_000
_PORTIONS = (1_000, 10_000)


async def _outbox(site: Site, portion: int) -> Sample:
    count = max(site.sizes.bulk, portion)
    async with site.store.in_use():
        await dispatch_many([NoOp(number=0)])
        begun = time.perf_counter()
        for start in range(0, count, portion):
            await dispatch_many(NoOp(number=number) for number in range(start, start + portion))
        return Sample({RATE: count / (time.perf_counter() - begun)})


async def _bare(site: Site, portion: int) -> Sample:
    count = max(site.sizes.bulk, portion)
    writer = await open_writer(site.store, _ROWS_PER_INSERT)
    begun = time.perf_counter()
    for start in range(0, count, portion):
        for first in range(start, start + portion, _ROWS_PER_INSERT):
            await writer.write(range(first, first + _ROWS_PER_INSERT))
        await writer.commit()
    seconds = time.perf_counter() - begun
    await writer.close()
    return Sample({RATE: count / seconds})


def _variants(store: Store, _: Sizes) -> Sequence[Variant]:
    variants = []
    for portion in _PORTIONS:
        name, bare = f"outbox, {portion:,} per call", f"bare INSERTs, {portion:,} per transaction"
        measure = partial(_outbox, portion=portion)
        variants.append(Variant(name, measure, against=None if store.is_redis else bare))
        if not store.is_redis:
            variants.append(Variant(bare, partial(_bare, portion=portion)))
    return variants


DISPATCH_MANY = Scenario("dispatch-many", "dispatch_many", _variants, compared=RATE)
