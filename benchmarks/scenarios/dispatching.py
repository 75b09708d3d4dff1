"""Dispatch one by one, each stored when ``dispatch`` returns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bare.writing import open_writer
from benchmarks.jobs import NoOp
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import Store
from outbox import dispatch

RATE = "jobs/s"
_BARE = "bare INSERT and COMMIT"


async def _outbox(site: Site) -> Sample:
    count = site.sizes.dispatches
    async with site.store.in_use():
        await dispatch(NoOp(number=0))
        begun = time.perf_counter()
        for number in range(count):
            await dispatch(NoOp(number=number))
        return Sample({RATE: count / (time.perf_counter() - begun)})


async def _bare(site: Site) -> Sample:
    count = site.sizes.dispatches
    writer = await open_writer(site.store, rows=1)
    begun = time.perf_counter()
    for number in range(count):
        await writer.write([number])
        await writer.commit()
    seconds = time.perf_counter() - begun
    await writer.close()
    return Sample({RATE: count / seconds})


def _variants(store: Store, _: Sizes) -> Sequence[Variant]:
    if store.is_redis:
        return [Variant("outbox", _outbox)]
    return [Variant("outbox", _outbox, against=_BARE), Variant(_BARE, _bare)]


DISPATCH = Scenario("dispatch", "Dispatch one by one, without a session", _variants, compared=RATE)
