"""Jobs dispatched to Redis in a transaction: written to the database, moved on after the commit, each of them once."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.errors import BackendUnavailable
from outbox.relay.relay import Relay
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope
from tests.integration.relay.relayed import WAITING, age, committed, drained, just_before, let_go
from tests.support.orders import Receipt, async_engine

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("configured")]


async def test_a_committed_job_reaches_redis_with_everything_it_had(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    [job_id] = await committed(migrated_url, 7, priority=2, max_tries=9)
    assert await redis.jobs.claim(["mail"], 10, 30) == []
    assert await database.jobs.claim(["mail", "default"], 10, 30) == [], "a worker of the database would run it"
    assert await relay.move() == 1
    claim = await claim_one(redis, "mail")
    assert (claim.fence.job_id, claim.priority, claim.attempt) == (job_id, 2, 1)
    assert json.loads(claim.payload)["order_id"] == 7
    assert json.loads(claim.headers) == {"max_tries": 9}


async def test_a_rolled_back_job_never_does(migrated_url: str, redis: RedisDriver, relay: Relay) -> None:
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session:
        await dispatch(Receipt(order_id=1), session=session, connection="redis")
        await session.flush()
        await session.rollback()
        undone = await session.begin_nested()
        await dispatch(Receipt(order_id=2), session=session, connection="redis")
        await undone.rollback()
        await dispatch(Receipt(order_id=3), session=session, connection="redis")
        await session.commit()
    await engine.dispose()
    assert await relay.move() == 1
    assert await drained(redis) == [3]


@pytest.mark.usefixtures("looking_at_once")
async def test_a_row_stays_until_its_job_has_ended_and_a_repeated_move_makes_no_second_job(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, 1, 2)
    for _ in range(3):
        assert await relay.move() == 2
    assert len(await database.jobs.list_jobs(WAITING)) == 2
    assert await drained(redis) == [1, 2]
    assert await drained(redis) == []
    assert await relay.move() == 2
    assert await database.jobs.list_jobs() == []
    assert await drained(redis) == [], "a job that had ended was stored again"


@pytest.mark.usefixtures("looking_at_once")
@pytest.mark.parametrize("end", [Settlement.cancelled, lambda fence: Settlement.failed(fence, FAILURE)])
async def test_jobs_that_end_otherwise_have_ended(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay, end: object
) -> None:
    await committed(migrated_url, 1)
    await relay.move()
    claim = await claim_one(redis, "mail")
    await redis.jobs.settle([end(claim.fence)])  # type: ignore[operator]
    await relay.move()
    assert await database.jobs.list_jobs() == []
    assert await redis.jobs.claim(["mail"], 10, 30) == []


@pytest.mark.parametrize("end", [Settlement.completed, lambda fence: Settlement.failed(fence, FAILURE)])
async def test_the_row_of_a_job_that_ended_is_removed_without_a_look_at_it(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay, end: object
) -> None:
    [first, second] = await committed(migrated_url, 1, 2)
    assert await relay.move() == 2
    assert await relay.remove_ended() == 0
    [one, other] = await redis.jobs.claim(["mail"], 2, 30)
    await redis.jobs.settle([end(one.fence), Settlement.released(other.fence, 0)])  # type: ignore[operator]
    assert await relay.remove_ended() == 1
    assert [row.id for row in await database.jobs.list_jobs()] == [second], first
    claim = await claim_one(redis, "mail")
    await redis.jobs.settle([end(claim.fence)])  # type: ignore[operator]
    assert await relay.remove_ended() == 1
    assert await database.jobs.list_jobs() == []


async def test_the_row_of_an_end_that_was_lost_on_the_way_is_found_by_a_later_look(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay, looking_at_once: None
) -> None:
    await committed(migrated_url, 1)
    await relay.move()
    assert await drained(redis) == [1]
    assert len(await redis.relay_target.take_ended()) == 1
    assert await relay.remove_ended() == 0
    assert await relay.move() == 1
    assert await database.jobs.list_jobs() == []


@pytest.mark.usefixtures("looking_at_once")
async def test_a_row_that_was_removed_at_once_and_is_sent_late_makes_no_second_job(
    migrated_url: str,
    database: DatabaseDriver,
    redis: RedisDriver,
    relay: Relay,
    late: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await committed(migrated_url, 1)
    assert await relay.move() == 1

    async def the_job_ends() -> None:
        assert await drained(redis) == [1]
        assert await relay.remove_ended() == 1

    let_go(migrated_url)
    just_before(redis, the_job_ends, monkeypatch)
    assert await late.move() == 1
    assert await drained(redis) == []
    assert await database.jobs.list_jobs() == []


async def test_ends_of_plain_jobs_are_not_noted(redis: RedisDriver, redis_url: str) -> None:
    await redis.jobs.insert([envelope(1), envelope(2)])
    claims = await redis.jobs.claim(["default"], 2, 30)
    async with Redis.from_url(redis_url) as admin:
        await admin.config_resetstat()
        await redis.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
        used = await admin.info("commandstats")
        assert {
            name: used[name]["calls"] for name in used if name not in {"cmdstat_config|resetstat", "cmdstat_info"}
        } == {
            "cmdstat_evalsha": 1,
            "cmdstat_time": 1,
            "cmdstat_hmget": 1,
            "cmdstat_zrem": 1,
            "cmdstat_hdel": 2,
        }
    assert await redis.relay_target.take_ended() == {}


@pytest.mark.usefixtures("looking_at_once")
async def test_a_relay_that_dies_after_storing_and_before_writing_it_down_is_harmless(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(migrated_url, 1)
    settle = database.jobs.settle

    async def die(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(database.jobs, "settle", die)
    with pytest.raises(RuntimeError, match="killed"):
        await relay.move()
    assert await drained(redis) == [1], "it was stored"
    let_go(migrated_url)
    monkeypatch.setattr(database.jobs, "settle", settle)
    await relay.move()
    await relay.move()
    assert await drained(redis) == [], "it was stored twice"
    assert await database.jobs.list_jobs() == []


@pytest.mark.usefixtures("looking_at_once")
async def test_a_redis_that_was_flushed_is_given_its_jobs_again(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay, redis_url: str
) -> None:
    await committed(migrated_url, 1, 2)
    await relay.move()
    assert len(await redis.jobs.claim(["mail"], 1, 30)) == 1
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    assert await drained(redis) == []
    await relay.move()
    assert await drained(redis) == [1, 2]
    await relay.move()
    assert await database.jobs.list_jobs() == []


@pytest.mark.usefixtures("looking_at_once")
async def test_a_redis_that_is_away_loses_nothing(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver
) -> None:
    await committed(migrated_url, 1)
    nowhere = RedisDriver("redis://127.0.0.1:1/0")
    with pytest.raises(BackendUnavailable):
        await Relay(database, nowhere, "redis").move()
    await nowhere.close()
    assert await Relay(database, redis, "redis").move() == 1
    assert await drained(redis) == [1]


async def test_rows_are_on_their_way_until_redis_has_their_jobs(
    migrated_url: str, database: DatabaseDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await database.relay_source.has_unrelayed(WAITING)
    await committed(migrated_url, 1, 2)
    assert await database.relay_source.has_unrelayed(WAITING)
    nowhere = RedisDriver("redis://127.0.0.1:1/0")
    with pytest.raises(BackendUnavailable):
        await Relay(database, nowhere, "redis").move()
    await nowhere.close()
    assert await database.relay_source.has_unrelayed(WAITING), "it was tried in vain"
    await age(migrated_url, 1)
    claims = await database.jobs.claim([WAITING], 2, 0)
    assert await database.relay_source.has_unrelayed(WAITING), "who claimed it may have died before it was moved"
    await database.jobs.settle([Settlement.snoozed(claim.fence) for claim in claims])
    assert await relay.move() == 2
    assert not await database.relay_source.has_unrelayed(WAITING)
    await age(migrated_url, 1)
    assert not await database.relay_source.has_unrelayed(WAITING), (
        "it is about to be looked at again, and was moved all the same"
    )


async def test_a_row_that_says_no_queue_is_kept_as_failed(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:

    await database.jobs.insert([envelope(1)._replace(queue=WAITING)])
    assert await relay.move() == 1
    [failed] = await database.failed.page()
    assert "which queue" in failed.failure.message


async def test_the_order_of_dispatch_is_kept_over_many_batches(
    migrated_url: str, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, *range(1_200))
    while await relay.move():
        pass
    claims = await redis.jobs.claim(["mail"], 2_000, 30)
    assert [json.loads(claim.payload)["order_id"] for claim in claims] == list(range(1_200))


async def test_two_relays_at_once_store_each_job_once(
    migrated_url: str, database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    await committed(migrated_url, *range(2_000))
    moved = await asyncio.gather(*(relay.move() for _ in range(6)))
    while await relay.move():
        pass
    assert sum(moved) <= 2_000
    assert sorted(await drained(redis) + await drained(redis)) == list(range(2_000))
