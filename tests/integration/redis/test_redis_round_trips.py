"""Counted on the wire: no call waits more often because there are more tokens, queues or jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from benchmarks.proxy import between
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import Claim
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelope

pytestmark = pytest.mark.redis

FEW, MANY = 2, 40


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Any]:
    async with between(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def driver(proxy: Any) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(proxy.url)
    yield driver
    await driver.close()


def names(count: int) -> list[str]:
    return [f"queue{number:02}" for number in range(count)]


async def claimed(driver: RedisDriver, count: int) -> list[Claim]:
    """A job in each of so many queues, each claimed with a token of its own."""
    await driver.jobs.insert([envelope(queue=queue) for queue in names(count)])
    return [claim for queue in names(count) for claim in await driver.jobs.claim([queue], 1, 30)]


async def claim(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await driver.jobs.insert([envelope(queue=queue) for queue in names(count)])

    async def call() -> None:
        claims = await driver.jobs.claim(names(count), 100, 30)
        assert [claim.queue for claim in claims] == names(count)

    return call


async def next_due(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    return lambda: driver.jobs.next_due(names(count))


async def extend(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    fences = [claim.fence for claim in await claimed(driver, count)]

    async def call() -> None:
        assert (await driver.jobs.extend(fences, 30)).kept == set(fences)

    return call


async def extend_of_another_process(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    fences = [claim.fence for claim in await claimed(driver, count)]
    driver.jobs.locator.settled(fences)

    async def call() -> None:
        assert (await driver.jobs.extend(fences, 30)).kept == set(fences)

    return call


async def settle(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    ends = [Settlement.failed(claim.fence, FAILURE) for claim in await claimed(driver, count)]

    async def call() -> None:
        assert len((await driver.jobs.settle(ends)).accepted) == count

    return call


async def counts(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await claimed(driver, count)
    return driver.queues.counts


async def find(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await driver.jobs.insert([envelope(queue=queue) for queue in names(count)])
    return lambda: driver.jobs.find("ffffffff")


async def failed(driver: RedisDriver, count: int) -> None:
    await (await settle(driver, count))()


async def list_failed(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await failed(driver, count)
    return driver.failed.page


async def retry_all(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await failed(driver, count)
    return driver.failed.retry_all


async def flush(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    await failed(driver, count)
    return driver.failed.flush


async def after_a_restart(driver: RedisDriver, count: int) -> Callable[[], Awaitable[Any]]:
    """The server knows none of the scripts."""
    call = await extend(driver, count)

    async def anew() -> None:
        await call()

    await driver.store.client.script_flush()
    return anew


CALLS = [
    claim,
    next_due,
    extend,
    extend_of_another_process,
    settle,
    counts,
    list_failed,
    retry_all,
    flush,
    after_a_restart,
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_a_call_waits_as_often_for_many_queues_as_for_few(driver: RedisDriver, proxy: Any, call: Any) -> None:
    waited = []
    # The first time it connects, and the server learns the scripts.
    for count in (FEW, FEW, MANY):
        await driver.store.client.flushdb()
        run = await call(driver, count)
        proxy.round_trips = 0
        await run()
        waited.append(proxy.round_trips)
    assert waited[2] == waited[1]


async def test_ids_are_looked_for_in_a_hundred_sets_at_a_time(driver: RedisDriver, proxy: Any) -> None:
    """Ten to a queue."""
    call = await find(driver, MANY)
    await call()
    proxy.round_trips = 0
    await call()
    assert proxy.round_trips == 1 + MANY * 10 / 100


async def test_jobs_of_many_queues_are_listed_in_few_round_trips(driver: RedisDriver, proxy: Any) -> None:
    await driver.jobs.insert([envelope(queue=queue) for queue in names(MANY)])
    await driver.jobs.list_jobs()
    proxy.round_trips = 0
    assert [job.queue for job in await driver.jobs.list_jobs()] == names(MANY)
    assert proxy.round_trips <= 5
