"""Delays of relayed jobs, and when a relay looks at their rows again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.relay.relay import Relay, next_look
from tests.integration.relay.relayed import WAITING, age, committed, drained, due_in

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("configured")]


async def test_a_delay_is_waited_for_in_redis_so_that_nobody_need_look_when_it_ends(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, 1, delay=600)
    assert await relay.move() == 1
    assert 590 < await due_in(redis, "mail") <= 600
    assert 600 < await due_in(database, WAITING) <= 610, "there is nothing to see before the delay has ended"
    [job] = await redis.jobs.list_jobs()
    assert (job.state, job.headers) == ("delayed", "{}")


async def test_a_moment_is_waited_for_in_redis(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, 1, delay=await database.now() + timedelta(seconds=600))
    await committed(migrated_url, 2, delay=await database.now() - timedelta(seconds=600))
    assert await relay.move() == 2
    assert await drained(redis) == [2]
    assert 590 < await due_in(redis, "mail") <= 600


async def test_a_delay_counts_from_the_writing_by_the_clock_of_the_database(
    migrated_url: str, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, 1, delay=600)
    await committed(migrated_url, 2)
    await committed(migrated_url, 3, delay=60)
    await age(migrated_url, 100)
    assert await relay.move() == 3
    assert await drained(redis) == [2, 3], "the delay was counted from the move"
    assert 490 < await due_in(redis, "mail") <= 500


async def test_a_redis_that_lost_a_delayed_job_is_given_what_is_left_of_the_delay(
    migrated_url: str, redis: RedisDriver, relay: Relay, redis_url: str
) -> None:
    await committed(migrated_url, 1, delay=600)
    assert await relay.move() == 1
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    await age(migrated_url, 100)
    assert await relay.move() == 1
    assert 490 < await due_in(redis, "mail") <= 500


def test_looks_become_rarer() -> None:
    assert [next_look(attempt) for attempt in (1, 2, 3, 10, 65_535)] == [10, 20, 40, 3600, 3600]


def test_the_next_look_at_a_delayed_job_is_after_its_delay_or_before_redis_forgets_that_it_had_it() -> None:
    assert [next_look(1, 600), next_look(9, 5), next_look(1, 60 * 86_400)] == [610, 15, 86_410]
