"""Jobs with policies on Redis: the database decides when they may run, and learns how they have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from outbox import dispatch
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.base import Park, Refusal
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import JobState, PolicyNews
from outbox.envelope import Headers, policies_in
from outbox.errors import BackendUnavailable, ConfigurationError, DuplicateJob
from outbox.ids import JobId
from outbox.policies import declarations
from outbox.policies.base import Declaration, Policies
from outbox.relay import relay as relay_module
from outbox.relay.relay import Relay
from outbox.relay.thread import RelayThreads
from outbox.settlement import Outcome, Settlement
from tests.conformance.jobs import FAILURE, claim_one
from tests.support.orders import Receipt
from tests.support.told_policy import Told

pytestmark = pytest.mark.redis

QUEUE = Receipt.queue


@pytest.fixture(autouse=True)
def woken(migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both stores, and no relay of this process: tests move jobs themselves."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    woken: list[str] = []
    monkeypatch.setattr(default_client.part(RelayThreads), "wake", lambda connection, _: woken.append(connection))
    return woken


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Every job has this policy."""
    told = Told(Policies.KEY)
    declared = Declaration(Policies.KEY, "trace", lambda *_: {"traceparent": "00-1"})  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(registry, "POLICIES", [told])
    monkeypatch.setattr(declarations, "DECLARE", [lambda *_: declared])
    return told


@pytest.fixture
async def redis(redis_url: str, migrated_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url, failed_store=FailedJobArchive(migrated_url, of="redis"))
    yield driver
    await driver.close()


@pytest.fixture
def relay(database: DatabaseDriver, redis: RedisDriver) -> Relay:
    return Relay(database, redis, "redis")


async def dispatched() -> JobId:
    return await dispatch(Receipt(order_id=1), connection="redis")


async def end(redis: RedisDriver, outcome: Outcome = Outcome.COMPLETED) -> None:
    claim = await claim_one(redis, QUEUE)
    assert claim.policies == Policies.KEY
    settlement = {
        Outcome.COMPLETED: Settlement.completed(claim.fence),
        Outcome.FAILED: Settlement.failed(claim.fence, FAILURE),
        Outcome.CANCELLED: Settlement.cancelled(claim.fence),
    }[outcome]
    settled = await redis.jobs.settle([settlement.leaving(claim.policies, claim.headers)])
    assert len(settled.accepted) == 1


async def test_a_job_reaches_redis_when_its_policy_admits_it(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, key: Told, woken: list[str]
) -> None:
    job_id = await dispatched()
    assert woken == ["redis"]
    assert key.dispatches == [job_id]
    key.verdicts = {job_id: Park()}
    assert await relay.move() == 0
    assert await redis.jobs.list_jobs() == []
    stored = await database.jobs.get(job_id)
    assert stored is not None
    assert stored.state is JobState.PARKED
    key.verdicts = {}
    async with database.database.engine.begin() as connection:
        await connection.exec_driver_sql(database.database.dialect.unpark(1), (job_id.bytes,))
    assert await relay.move() == 1
    claim = await claim_one(redis, QUEUE)
    assert (claim.fence.job_id, claim.policies) == (job_id, Policies.KEY)
    assert Headers.load(claim.headers).trace == {"traceparent": "00-1"}


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED])
async def test_the_end_over_there_settles_the_row(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, key: Told, outcome: Outcome
) -> None:
    heard: list[PolicyNews] = []
    database.policies.on_news = heard.append
    job_id = await dispatched()
    await relay.move()
    await end(redis, outcome)
    await relay.remove_ended()
    assert key.left == [(job_id, outcome)]
    assert key.after_commit == [job_id]
    assert heard == [PolicyNews(frozenset({"other"}))]
    assert await database.jobs.list_jobs() == []
    assert await redis.relay_target.outcomes({job_id: QUEUE}) == {}


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED])
async def test_an_end_whose_note_was_lost_is_found_by_a_later_look(
    database: DatabaseDriver,
    redis: RedisDriver,
    relay: Relay,
    key: Told,
    redis_url: str,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "FIRST_LOOK", 0.0)
    job_id = await dispatched()
    await relay.move()
    assert key.starts == [([job_id], [])]
    await end(redis, outcome)
    async with Redis.from_url(redis_url) as client:
        await client.delete(f"outbox:{{{QUEUE}}}:ended")
    await relay.move()
    assert key.starts == [([job_id], [])], "a look is no start"
    assert key.left == [(job_id, outcome)]
    assert await database.jobs.list_jobs() == []


@pytest.mark.parametrize("verb", ["cancel", "clear"])
async def test_a_job_that_an_operator_removes_over_there_leaves_its_policies(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, key: Told, verb: str
) -> None:
    job_id = await dispatched()
    await relay.move()
    await (redis.jobs.cancel([job_id]) if verb == "cancel" else redis.queues.clear(QUEUE))
    await relay.remove_ended()
    assert key.left == [(job_id, Outcome.CANCELLED)]
    assert await database.jobs.list_jobs() == []


async def test_a_failed_job_returns_through_its_policies(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, key: Told
) -> None:
    job_id = await dispatched()
    await relay.move()
    await end(redis, Outcome.FAILED)
    await relay.remove_ended()
    failed = await redis.failed.get(job_id)
    assert failed is not None
    assert failed.policies == Policies.KEY
    key.refused = {job_id: Refusal("taken")}
    with pytest.raises(DuplicateJob, match="taken"):
        await redis.failed.retry([job_id])
    assert await redis.failed.retry_all() == 0
    key.refused = {}
    assert await redis.failed.retry([job_id]) == [job_id]
    assert await redis.jobs.list_jobs() == []
    assert [job.queue for job in await database.jobs.list_jobs()] == [">redis"]
    await relay.move()
    await end(redis)
    await relay.remove_ended()
    assert key.left[-1] == (job_id, Outcome.COMPLETED)


async def test_a_job_that_redis_could_not_take_is_put_back_and_asked_for_again(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, key: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 0.0)
    job_id = await dispatched()

    async def down(_: object) -> None:
        raise BackendUnavailable("down")

    with monkeypatch.context() as patched:
        patched.setattr(redis.relay_target, "insert_once", down)
        with pytest.raises(BackendUnavailable):
            await relay.move()
    assert key.left == [(job_id, Outcome.SNOOZED)]
    await relay.move()
    assert key.starts == [([job_id], []), ([job_id], [])]
    assert (await claim_one(redis, QUEUE)).fence.job_id == job_id


async def test_without_a_database_a_policy_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="those with policies such as `unique`, are relayed"):
        await dispatched()


def test_headers_of_others_have_no_policies() -> None:
    assert policies_in('{"policies": "x"}') is None
    assert policies_in("{}") is None
