"""Dispatch one by one, each stored when ``dispatch`` returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import outbox.sync
from benchmarks.bare.writing import open_writer
from benchmarks.jobs import NoOp
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store, opened
from outbox import configure, disconnect, dispatch

RATE = "jobs/s"
_PROCESSOR = "CPU µs a job"
"""Of this process, whose threads are counted as well."""
_BARE = "bare INSERT and COMMIT"
_BARE_AUTOCOMMIT = "bare INSERT in autocommit"


def _begin() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _end(count: int, begun: tuple[float, float]) -> Sample:
    seconds, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
    return Sample({RATE: count / seconds, _PROCESSOR: 1_000_000 * processor / count})


async def _outbox(site: Site) -> Sample:
    count = site.sizes.dispatches
    async with site.store.in_use():
        await dispatch(NoOp(number=0))
        begun = _begin()
        for number in range(count):
            await dispatch(NoOp(number=number))
        return _end(count, begun)


async def _bare(site: Site) -> Sample:
    count = site.sizes.dispatches
    writer = await open_writer(site.store, rows=1)
    begun = _begin()
    for number in range(count):
        await writer.write([number])
        await writer.commit()
    sample = _end(count, begun)
    await writer.close()
    return sample


def _variants(store: Store, _: Sizes) -> Sequence[Variant]:
    if store.is_redis:
        return [Variant("outbox", _outbox)]
    return [Variant("outbox", _outbox, against=_BARE), Variant(_BARE, _bare)]


async def _with_redis(site: Site) -> Sample:
    """With a Redis beside the database, to which every dispatch tells which queue has a job."""
    count = site.sizes.dispatches
    with opened("redis", site.directory / "redis") as redis:
        configure(database_url=site.store.url, redis_url=redis.url)
        try:
            await dispatch(NoOp(number=0))
            begun = _begin()
            for number in range(count):
                await dispatch(NoOp(number=number))
            sample = _end(count, begun)
            await disconnect()
        finally:
            configure()
    return sample


async def _sync(site: Site) -> Sample:
    return await asyncio.to_thread(_dispatch_sync, site)


def _dispatch_sync(site: Site) -> Sample:
    count = site.sizes.dispatches
    configure(database_url=site.store.url)
    try:
        outbox.sync.dispatch(NoOp(number=0))
        begun = _begin()
        for number in range(count):
            outbox.sync.dispatch(NoOp(number=number))
        sample = _end(count, begun)
        outbox.sync.disconnect()
    finally:
        configure()
    return sample


async def _bare_autocommit(site: Site) -> Sample:
    """On SQLite the transaction that its driver begins and ends."""
    count = site.sizes.dispatches
    writer = await open_writer(site.store, rows=1)
    await writer.autocommit()
    begun = _begin()
    for number in range(count):
        await writer.write([number])
    sample = _end(count, begun)
    await writer.close()
    return sample


def _one_variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [
        Variant("outbox", _outbox, against=_BARE_AUTOCOMMIT),
        Variant("outbox, Redis for wake-ups", _with_redis, against=_BARE_AUTOCOMMIT),
        Variant("outbox.sync", _sync, against=_BARE_AUTOCOMMIT),
        Variant(_BARE_AUTOCOMMIT, _bare_autocommit),
    ]


DISPATCH_ONE = Scenario(
    "dispatch-one",
    "Dispatch one by one beside an INSERT in autocommit",
    _one_variants,
    compared=RATE,
    stores=DATABASES,
)

DISPATCH = Scenario("dispatch", "Dispatch one by one, without a session", _variants, compared=RATE)
