"""Jobs dispatched to Redis in a transaction: written to the database, moved on after the commit, each of them once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import make_url, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import clock, dispatch, dispatch_many
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.tables import jobs
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import Claim
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable, ConfigurationError, SessionUnusable
from outbox.relay import relay as relay_module
from outbox.relay.relay import Relay, next_look
from outbox.relay.thread import RelayThreads
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope
from tests.support.orders import Receipt, async_engine, sync_engine

pytestmark = pytest.mark.redis

WAITING = ">redis"


@pytest.fixture(autouse=True)
def configured(migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores, and no relay of this process: tests move jobs themselves, or ask for `relay_loop`."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(default_client.part(RelayThreads), "wake", lambda _: None)


@pytest.fixture
def relay(database: DatabaseDriver, redis: RedisDriver) -> Relay:
    return Relay(database, redis, "redis")


@pytest.fixture
def looking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are looked at again at the next move, instead of seconds later."""
    monkeypatch.setattr(relay_module, "_FIRST_LOOK", 0.0)
    monkeypatch.setattr(relay_module, "_AGAIN_AFTER", 0.0)


async def committed(url: str, *numbers: int, **options: object) -> list[outbox.JobId]:
    engine = async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        receipts = [Receipt(order_id=number) for number in numbers]
        ids = await dispatch_many(receipts, session=session, connection="redis", **options)  # type: ignore[arg-type]
    await engine.dispose()
    return ids


async def drained(redis: RedisDriver, queue: str = "mail") -> list[int]:
    claims = await redis.jobs.claim([queue], 1_000, 30)
    await redis.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    return [json.loads(claim.payload)["order_id"] for claim in claims]


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


async def age(url: str, seconds: int) -> None:
    """As if every row had been written so many seconds earlier, and were due."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        for job_id, written in connection.execute(select(jobs.c.id, jobs.c.created_at)).all():
            earlier = written - timedelta(seconds=seconds)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(created_at=earlier, available_at=earlier))
    engine.dispose()


def let_go(url: str) -> None:
    """As if the hold on every row had run out."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        earlier = datetime(2020, 1, 1)  # noqa: DTZ001 - as the tables have it, in UTC
        held = jobs.c.reserved_until.is_not(None)
        connection.execute(update(jobs).where(held).values(available_at=earlier, reserved_until=earlier))
    engine.dispose()


async def due_in(driver: DatabaseDriver | RedisDriver, queue: str) -> float:
    due = (await driver.jobs.next_due([queue])).due
    assert due is not None
    return due


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


@pytest.fixture
async def late(migrated_url: str, redis: RedisDriver) -> AsyncIterator[Relay]:
    """The relay of another process, which is about to take longer than its hold on the rows lasts."""
    source = DatabaseDriver(migrated_url)
    yield Relay(source, redis, "redis")
    await source.close()


def just_before(redis: RedisDriver, meanwhile: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next jobs that a relay sends reach Redis when ``meanwhile`` has happened."""
    insert_once = redis.relay_target.insert_once

    async def accept_late(envelopes: Sequence[Envelope]) -> frozenset[outbox.JobId]:
        monkeypatch.setattr(redis.relay_target, "insert_once", insert_once)
        await meanwhile()
        return await insert_once(envelopes)

    monkeypatch.setattr(redis.relay_target, "insert_once", accept_late)


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
            return await client.zcard("outbox:{mail}:relayed"), await client.ttl("outbox:{mail}:relayed")

        [first] = await committed(migrated_url, 1)
        await relay.move()
        assert await known() == (1, -1)
        await drained(redis)
        await committed(migrated_url, 2)
        await relay.move()
        assert await known() == (2, -1), "the other one has a row"
        await drained(redis)
        await relay.move()
        assert await known() == (2, 600)
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


@pytest.fixture
def relay_loop(monkeypatch: pytest.MonkeyPatch, configured: None) -> None:
    """This process relays what it commits, as applications do."""
    monkeypatch.undo()


async def arrived(redis: RedisDriver) -> list[int]:
    async with asyncio.timeout(20):
        while not (numbers := await drained(redis)):
            await asyncio.sleep(0.01)
    return numbers


async def test_the_process_that_dispatched_moves_its_jobs_at_once(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch, relay_loop: None
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    await committed(migrated_url, 1)
    assert await arrived(redis) == [1]

    def work() -> None:
        engine = sync_engine(migrated_url)
        with Session(engine) as session:
            outbox.sync.dispatch(Receipt(order_id=2), session=session, connection="redis")
            session.commit()
        engine.dispose()

    await asyncio.to_thread(work)
    assert await arrived(redis) == [2]
    default_client.part(RelayThreads).stop()


async def test_a_delayed_job_is_in_redis_before_its_delay_has_ended(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch, relay_loop: None
) -> None:
    """Redis wakes the workers when it is due; a row would wait until somebody looks."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    await committed(migrated_url, 1, delay=600)
    async with asyncio.timeout(20):
        while not (counts := await redis.queues.counts()):
            await asyncio.sleep(0.01)
    assert [(each.queue, each.ready, each.delayed) for each in counts] == [("mail", 0, 1)]
    default_client.part(RelayThreads).stop()


@pytest.fixture
def elsewhere(migrated_url: str, tmp_path: Path) -> str:
    """Another database, with which these tests need not connect."""
    url = make_url(migrated_url)
    if url.get_backend_name() != "sqlite":
        return url.set(database="elsewhere").render_as_string(hide_password=False)
    (tmp_path / "elsewhere.db").touch()
    return url.set(database=str(tmp_path / "elsewhere.db")).render_as_string()


async def test_a_session_of_a_database_in_which_no_relay_looks_is_refused(elsewhere: str) -> None:
    engine = async_engine(elsewhere)
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionUnusable, match="DATABASE_URL"):
            await dispatch(Receipt(order_id=1), session=session, connection="redis")
        assert not session.new, "nothing may be written after a refusal"
        await dispatch(Receipt(order_id=2), session=session, connection="database")
        assert session.new, "the jobs of that database itself are its own business"
    await engine.dispose()


async def test_without_a_database_beside_redis_a_session_is_refused(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await committed(migrated_url, 1)


def test_looks_become_rarer() -> None:
    assert [next_look(attempt) for attempt in (1, 2, 3, 10, 65_535)] == [10, 20, 40, 3600, 3600]


def test_the_next_look_at_a_delayed_job_is_after_its_delay_or_before_redis_forgets_that_it_had_it() -> None:
    assert [next_look(1, 600), next_look(9, 5), next_look(1, 60 * 86_400)] == [610, 15, 86_410]
