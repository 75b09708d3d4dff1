"""Jobs with keys and unique jobs that run on Redis: the database lets them go there when they may run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest

from outbox import (
    Batch,
    Job,
    RateLimit,
    Worker,
    cancel,
    cancel_batch,
    disconnect,
    dispatch,
    dispatch_batch,
    retry,
    retry_all,
    retry_batch,
)
from outbox.client_state import default_client
from outbox.drivers.audit import acting
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.script import Call as Script
from outbox.drivers.values import Claim, JobState
from outbox.errors import BackendUnavailable
from outbox.ids import JobId
from outbox.relay.relay import Relay
from outbox.relay.thread import RelayThreads
from outbox.settlement import MoveRates, Settlement
from tests.conformance.jobs import FAILURE
from tests.support.commands import run

pytestmark = pytest.mark.redis


class Apply(Job):
    ordering_key = "aggregate"
    aggregate: int
    number: int

    async def handle(self) -> None: ...


class Charge(Job):
    concurrency_key = "customer"
    concurrency_limit = 2
    customer: int

    async def handle(self) -> None: ...


class Sync(Job):
    unique = ["customer"]  # noqa: RUF012 - as users write it
    on_conflict = "replace"
    customer: int
    state: str

    async def handle(self) -> None: ...


class Newest(Sync):
    unique_until = "end"


MAIL = RateLimit("redis.mail", "100/s", burst=100)
SMS = RateLimit("redis.sms", "100/s", burst=100)


class Call(Job):
    rate = MAIL

    async def handle(self) -> None: ...


class Latest(Job):
    concurrency_key = "customer"
    on_full = "replace_running"
    customer: int

    async def handle(self) -> None: ...


class Refused(Job):
    rate = SMS
    ran: ClassVar[asyncio.Event]

    async def handle(self) -> None:
        self.context.rate_limited(retry_after=600)
        self.ran.set()


@pytest.fixture(autouse=True)
async def _stores(migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Both stores, and no relay of this process: tests move jobs themselves."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(default_client.part(RelayThreads), "wake", lambda *_: None)
    yield
    await disconnect()


@pytest.fixture
async def redis(redis_url: str, migrated_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url, failed_store=FailedJobArchive(migrated_url, of="redis"))
    yield driver
    await driver.close()


@pytest.fixture
def relay(database: DatabaseDriver, redis: RedisDriver) -> Relay:
    return Relay(database, redis, "redis")


async def send(*jobs: Job) -> list[JobId]:
    return [await dispatch(job, connection="redis") for job in jobs]


async def claimed(redis: RedisDriver) -> list[Claim]:
    return await redis.jobs.claim(["default"], 10, 30)


async def end(redis: RedisDriver, relay: Relay, claim: Claim, *, fails: bool = False) -> None:
    settlement = Settlement.failed(claim.fence, FAILURE) if fails else Settlement.completed(claim.fence)
    settled = await redis.jobs.settle([settlement.leaving(claim.policies or 0, claim.headers)])
    assert len(settled.accepted) == 1
    await relay.remove_ended()


async def fail(redis: RedisDriver, claim: Claim) -> None:
    """The relay does not hear of it."""
    failed = Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)
    assert len((await redis.jobs.settle([failed])).accepted) == 1


async def test_jobs_of_an_ordering_key_run_one_at_a_time_in_their_order(redis: RedisDriver, relay: Relay) -> None:
    first, second, third = await send(*(Apply(aggregate=1, number=number) for number in range(3)))
    [other] = await send(Apply(aggregate=2, number=0))
    await relay.move()
    running = {claim.fence.job_id: claim for claim in await claimed(redis)}
    assert set(running) == {first, other}
    for before, after in ((first, second), (second, third)):
        assert await relay.move() == 0
        await end(redis, relay, running[before])
        assert await relay.move() == 1
        [claim] = await claimed(redis)
        assert claim.fence.job_id == after
        running[after] = claim


async def test_a_failure_over_there_blocks_the_ordering_key(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    first, second = await send(*(Apply(aggregate=1, number=number) for number in range(2)))
    await relay.move()
    [claim] = await claimed(redis)
    await end(redis, relay, claim, fails=True)
    assert await relay.move() == 0
    waiting = await database.jobs.get(second)
    assert waiting is not None
    assert waiting.state is JobState.PARKED
    await redis.failed.counts()  # what failed is in the database then
    assert await database.policies.blocked_keys("aggregate:1") == {first: "aggregate:1"}
    assert await database.policies.skip_failed([first]) == [first]
    assert await relay.move() == 1
    assert [each.fence.job_id for each in await claimed(redis)] == [second]


@pytest.mark.parametrize("every", [False, True])
async def test_a_failed_job_runs_that_is_retried_before_the_relay_has_heard_of_its_end(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, every: bool
) -> None:
    first, second = await send(*(Apply(aggregate=1, number=number) for number in range(2)))
    await relay.move()
    [claim] = await claimed(redis)
    await fail(redis, claim)
    assert await (redis.failed.retry_all() if every else redis.failed.retry([first]))
    for expected in (first, second):
        assert await relay.move() == 1
        await relay.remove_ended()
        assert await database.jobs.get(expected) is not None
        [claim] = await claimed(redis)
        assert claim.fence.job_id == expected
        await end(redis, relay, claim)


async def test_a_note_that_the_relay_has_taken_ends_no_job_that_was_retried_meanwhile(
    redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job_id] = await send(Charge(customer=7))
    await relay.move()
    [claim] = await claimed(redis)
    await fail(redis, claim)
    take_ended = redis.relay_target.take_ended

    async def slow() -> dict[JobId, str]:
        taken = await take_ended()
        if taken:
            assert await redis.failed.retry([job_id]) == [job_id]
        return taken

    monkeypatch.setattr(redis.relay_target, "take_ended", slow)
    await relay.remove_ended()
    assert await relay.move() == 1
    assert [each.fence.job_id for each in await claimed(redis)] == [job_id]


@pytest.mark.parametrize("fails", [False, True])
async def test_the_relay_hears_of_the_end_of_a_job_that_its_worker_claims_again_at_once(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Its worker puts it back, and has claimed it again before it has read the answer to that."""
    ends: list[None] = []
    redis.relay_target.on_relayed_end = lambda: ends.append(None)
    batch_id = await dispatch_batch([Call()], connection="redis")
    await relay.move()
    [claim] = await claimed(redis)
    again: list[Claim] = []
    send_all = Store.send_all

    async def read_late(store: Store, calls: Sequence[Script]) -> list[Any]:
        answers = await send_all(store, calls)
        monkeypatch.setattr(Store, "send_all", send_all)
        again.extend(await claimed(redis))
        return answers

    monkeypatch.setattr(Store, "send_all", read_late)
    await redis.jobs.settle([Settlement.retried(claim.fence, 0.0, FAILURE)])
    [next_claim] = again
    await end(redis, relay, next_claim, fails=fails)
    assert ends
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert (status.outstanding, status.failed) == (0, int(fails))


async def test_a_retried_member_leaves_the_batches_beside_it_as_they_are(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    inner = Batch([Call()])
    batch_id = await dispatch_batch([Call(), inner], connection="redis")
    await relay.move()
    members = await database.policies.batch_members(batch_id)
    running = {claim.fence.job_id in members: claim for claim in await claimed(redis)}
    await end(redis, relay, running[False])
    await end(redis, relay, running[True], fails=True)
    assert await redis.failed.retry_all() == 1
    await relay.move()
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert (status.state, status.total, status.outstanding) == ("open", 2, 1)
    [again] = await claimed(redis)
    await end(redis, relay, again)
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert (status.state, status.total, status.failed) == ("finished", 2, 0)


@pytest.mark.parametrize("outage", [False, True])
async def test_a_running_job_is_replaced_in_redis(
    redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch, outage: bool
) -> None:
    await send(Latest(customer=1))
    [other] = await send(Latest(customer=2))
    await relay.move()
    running = {claim.fence.job_id: claim for claim in await claimed(redis)}
    [newest] = await send(Latest(customer=1))
    if outage:
        monkeypatch.setattr("outbox.relay.relay.AGAIN_AFTER", 0.0)
        with monkeypatch.context() as patch:
            patch.setattr(redis.jobs, "cancel", unreachable)
            with pytest.raises(BackendUnavailable):
                await relay.move()
    assert await relay.move() == 1
    assert {job.id for job in await redis.jobs.list_jobs()} == {other, newest}
    settled = await redis.jobs.settle([Settlement.completed(claim.fence) for claim in running.values()])
    assert [each.fence.job_id for each in settled.accepted] == [other]
    assert [claim.fence.job_id for claim in await claimed(redis)] == [newest]


async def unreachable(_: object) -> list[JobId]:
    raise BackendUnavailable("gone")


async def test_a_batch_is_cancelled_with_its_members_in_redis(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    batch_id = await dispatch_batch([Call(), Call(), Batch([Call()])], connection="redis", finally_=Call())
    await relay.move()
    [running, *_] = await claimed(redis)
    with acting("anna", "batches cancel", {"id": str(batch_id)}):
        assert await cancel_batch(batch_id)
    assert [(each.by, each.target, each.count) for each in await database.audit.latest(5)] == [
        ("anna", {"id": str(batch_id)}, 0)
    ]
    assert await redis.jobs.list_jobs() == []
    late = await redis.jobs.settle([Settlement.completed(running.fence)])
    assert late.accepted == ()
    await relay.remove_ended()
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert (status.state, status.outstanding) == ("cancelled", 0)
    assert [job.name for job in await database.jobs.list_jobs()] == [Call.name], "finally_ waits"


async def test_a_retry_of_a_batch_puts_back_what_has_failed_in_redis(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    batch_id = await dispatch_batch([Call(), Batch([Call()])], connection="redis", allow_failures=False)
    await relay.move()
    for claim in await claimed(redis):
        await end(redis, relay, claim, fails=True)
    assert await redis.failed.counts() == {"default": 2}
    assert await retry_batch(batch_id) == 2
    assert await relay.move() == 2
    for claim in await claimed(redis):
        await end(redis, relay, claim)
    status = await database.policies.batch(batch_id)
    assert status is not None
    assert (status.state, status.failed) == ("finished", 0)


@pytest.mark.parametrize("how", ["retry", "retry_all", "outbox retry"])
async def test_a_retried_job_is_relayed_at_once_by_the_process_that_retries_it(
    migrated_url: str, redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """No worker is there whose relay could look."""
    [job_id] = await send(Charge(customer=7))
    await relay.move()
    [claim] = await claimed(redis)
    await end(redis, relay, claim, fails=True)
    threads = default_client.part(RelayThreads)
    monkeypatch.setattr(threads, "wake", partial(RelayThreads.wake, threads))
    if how == "retry":
        assert await retry(job_id, connection="redis")
    elif how == "retry_all":
        assert await retry_all(connection="redis") == 1
    else:
        assert (await run(migrated_url, "retry", str(job_id), "--connection", "redis")).code == 0
    async with asyncio.timeout(20):
        while await redis.jobs.get(job_id) is None:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(threads.stop)


async def test_a_job_that_was_relayed_is_cancelled_where_it_is(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    """Else the next one of its key would run beside it."""
    first, second = await send(*(Apply(aggregate=1, number=number) for number in range(2)))
    await relay.move()
    assert await database.jobs.cancel([first]) == []
    assert await cancel(first, connection="database")
    assert await redis.jobs.list_jobs() == []
    await relay.remove_ended()
    assert await relay.move() == 1
    [claim] = await claimed(redis)
    assert claim.fence.job_id == second
    assert await cancel(second, connection="database")
    assert not await cancel(second, connection="database")
    await relay.remove_ended()
    assert await database.jobs.list_jobs() == []


async def test_no_more_jobs_of_a_concurrency_key_are_over_there_than_its_limit(
    redis: RedisDriver, relay: Relay
) -> None:
    sent = await send(*(Charge(customer=7) for _ in range(5)))
    ended: list[JobId] = []
    while len(ended) < len(sent):
        await relay.move()
        running = await claimed(redis)
        assert len(running) == min(2, len(sent) - len(ended))
        for claim in running:
            await end(redis, relay, claim)
            ended.append(claim.fence.job_id)
    assert sorted(ended) == sorted(sent)


async def test_a_429_over_there_moves_the_limit(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.relay_target.on_refused = relay.note_refused
    await send(*(Call() for _ in range(3)))
    await relay.move()
    running, *_ = await claimed(redis)
    refused = MoveRates(running.headers, 600.0)
    put_back = Settlement.snoozed(running.fence, 600.0)._replace(effects=(refused,))
    assert await database.limits.take(MAIL.terms, 1, None) == 0.0
    settled = await redis.jobs.settle([put_back.leaving(running.policies or 0, running.headers)])
    assert len(settled.accepted) == 1
    await relay.move_rates()
    assert await database.limits.take(MAIL.terms, 1, None) > 590
    monkeypatch.setattr(database.limits, "move", None)
    await relay.move_rates()


async def test_a_worker_of_redis_moves_the_limit(database: DatabaseDriver) -> None:
    Refused.ran = asyncio.Event()
    await send(Refused())
    async with asyncio.timeout(30), Worker(connection="redis", concurrency=1):
        await Refused.ran.wait()
        while await database.limits.take(SMS.terms, 1, None) < 500:
            await asyncio.sleep(0.05)


async def test_a_unique_job_is_joined_until_it_leaves_for_redis(redis: RedisDriver, relay: Relay) -> None:
    first, same = await send(Sync(customer=7, state="old"), Sync(customer=7, state="new"))
    assert (first == same, first.created, same.created) == (True, True, False)
    assert await relay.move() == 1
    [claim] = await claimed(redis)
    assert '"new"' in claim.payload
    [after] = await send(Sync(customer=7, state="newest"))
    assert after.created
    assert await relay.move() == 1


async def test_a_job_that_is_unique_until_its_end_waits_for_the_one_over_there(
    database: DatabaseDriver, redis: RedisDriver, relay: Relay
) -> None:
    await send(Newest(customer=7, state="old"))
    await relay.move()
    [running] = await claimed(redis)
    [second] = await send(Newest(customer=7, state="new"))
    assert (second.created, await relay.move()) == (True, 0)
    waiting = await database.jobs.get(second)
    assert waiting is not None
    assert waiting.state is JobState.PARKED
    await end(redis, relay, running)
    assert await relay.move() == 1
    assert [each.fence.job_id for each in await claimed(redis)] == [second]
