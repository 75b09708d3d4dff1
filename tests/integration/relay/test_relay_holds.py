"""Relays that take longer than their hold on the rows, and what Redis knows meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from outbox import clock
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import Claim
from outbox.relay.relay import Relay
from tests.integration.relay.relayed import WAITING, committed, drained, just_before, let_go

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("configured")]


@pytest.mark.usefixtures("looking_at_once")
async def test_what_redis_had_is_known_for_as_long_as_its_row_is_there(
    migrated_url: str,
    database: DatabaseDriver,
    redis: RedisDriver,
    relay: Relay,
    late: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay whose hold ran out may not remove the row: then it may not let Redis forget the job either."""
    await committed(migrated_url, 1)
    assert await relay.move() == 1

    async def another_looks_and_the_job_ends() -> None:
        let_go(migrated_url)
        assert await relay.move() == 1
        assert await drained(redis) == [1]

    just_before(redis, another_looks_and_the_job_ends, monkeypatch)
    await late.move()
    assert len(await database.jobs.list_jobs(WAITING)) == 1, "it was for the other one to remove"
    await relay.move()
    assert await drained(redis) == [], "it was stored again"
    assert await database.jobs.list_jobs() == []


@pytest.fixture
def frozen(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> Callable[[], Awaitable[None]]:
    """What happens while a relay does nothing: another one moves its row, the job ends, and the row is removed."""

    async def meanwhile() -> None:
        let_go(migrated_url)
        assert await relay.move() == 1
        assert await drained(redis) == [1]
        assert await relay.move() == 1
        assert await database.jobs.list_jobs() == []

    return meanwhile


@pytest.mark.usefixtures("looking_at_once")
async def test_a_relay_that_was_frozen_sends_nothing(
    migrated_url: str,
    redis: RedisDriver,
    redis_url: str,
    late: Relay,
    frozen: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await committed(migrated_url, 1)
    claim = late.source.jobs.claim

    async def claim_and_freeze(queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        claims = await claim(queues, limit, lease)
        await frozen()
        async with Redis.from_url(redis_url) as client:
            await client.flushdb()
        return [each._replace(deadline=clock.now()) for each in claims]

    monkeypatch.setattr(late.source.jobs, "claim", claim_and_freeze)
    assert await late.move() == 1
    assert await drained(redis) == [], "not even a Redis that knows nothing may be given what may have ended"


@pytest.mark.usefixtures("looking_at_once")
async def test_redis_knows_a_job_that_has_ended_for_a_while_after_its_row_is_gone(
    migrated_url: str,
    redis: RedisDriver,
    redis_url: str,
    late: Relay,
    frozen: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay may freeze when it has looked at the clock, and a network may hold back what it sent."""
    await committed(migrated_url, 1)
    just_before(redis, frozen, monkeypatch)
    assert await late.move() == 1
    assert await drained(redis) == [], "it was stored again"
    async with Redis.from_url(redis_url) as client:
        assert 0 < await client.ttl("outbox:{mail}:relayed") <= 600


@pytest.mark.usefixtures("looking_at_once")
async def test_what_redis_still_has_to_know_does_not_go_with_what_it_may_forget(
    migrated_url: str, redis: RedisDriver, redis_url: str, relay: Relay
) -> None:
    async with Redis.from_url(redis_url) as client:

        async def known() -> tuple[int, int]:
            """How many there are, and for how long in minutes, rounded up."""
            seconds = await client.ttl("outbox:{mail}:relayed")
            return await client.zcard("outbox:{mail}:relayed"), -(-seconds // 60) if seconds > 0 else seconds

        [first] = await committed(migrated_url, 1)
        await relay.move()
        assert await known() == (1, -1)
        await drained(redis)
        await committed(migrated_url, 2)
        await relay.move()
        assert await known() == (2, -1), "the other one has a row"
        await drained(redis)
        await relay.move()
        assert await known() == (2, 10)
        await committed(migrated_url, 3)
        await relay.move()
        assert await known() == (3, -1), "there is a row again"
        await client.zincrby("outbox:{mail}:relayed", -600e6, first.bytes)
        await relay.move()
        assert await known() == (2, -1), "the while is over"


async def test_what_takes_longer_than_its_hold_is_moved_in_smaller_batches(
    migrated_url: str, redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(migrated_url, *range(8))
    claim = relay.source.jobs.claim

    async def claim_slowly(queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        claims = await claim(queues, limit, lease)
        if len(claims) <= 2:
            return claims
        let_go(migrated_url)
        return [each._replace(deadline=clock.now()) for each in claims]

    monkeypatch.setattr(relay.source.jobs, "claim", claim_slowly)
    assert [await relay.move() for _ in range(4)] == [8, 4, 2, 4]
    assert await drained(redis) == [0, 1]
