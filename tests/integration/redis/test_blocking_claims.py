"""On Redis, a worker that waits is given the next job by whoever stores it. Whatever becomes of that, the job is run
once and no attempt is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client
from redis.asyncio import Redis as AsyncClient

from outbox import clock
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.connection.raw_connection import RawConnection
from outbox.drivers.redis.keys import key
from outbox.drivers.redis.pubsub import PubSub, Subscribed
from outbox.drivers.redis.script import Call, Script
from outbox.drivers.values import BlockingClaimRequest, Claim, JobState, NextDue, StoredJob
from outbox.envelope import serialize
from outbox.errors import BackendUnavailable
from outbox.options import JobOptions
from outbox.settlement import Settlement
from outbox.wakeups.redis_channel import CHANNEL
from tests.conformance.jobs import envelope, envelopes
from tests.servers import databases
from tests.support.embedded_worker import Arrival, working
from tests.support.redis_proxy import Proxy, proxy

pytestmark = pytest.mark.usefixtures("lasting_claims")

LEASE = 30.0
CLAIM = Script("claim", "common/claims", returns=list)


class Waiter:
    """What a worker that waits does with its driver."""

    def __init__(self, url: str, lease: float = LEASE) -> None:
        self.driver = RedisDriver(url)
        self.lease = lease
        self.woken = asyncio.Event()

    async def next_due(self) -> NextDue:
        return await self.driver.blocking_claims.next_due(["default"], BlockingClaimRequest(self.lease, self.woken.set))

    async def told(self) -> None:
        async with asyncio.timeout(30):
            await self.woken.wait()
        self.woken.clear()

    async def claim(self, limit: int = 10) -> list[Claim]:
        return await self.driver.jobs.claim(["default"], limit, self.lease)


class Answers:
    """What those who wait are told of their claims: every answer goes through here, once one of them listens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.get_lost = False
        self.lost: list[Callable[[], None]] = []
        """Each can still be told."""
        subscribe = PubSub.subscribe

        async def subscribe_through(pubsub: PubSub, channel: str, hear: Callable[[bytes], None]) -> Subscribed:
            return await subscribe(pubsub, channel, hear if channel == CHANNEL else partial(self._tell, hear))

        monkeypatch.setattr(PubSub, "subscribe", subscribe_through)

    def _tell(self, hear: Callable[[bytes], None], answer: bytes) -> None:
        if self.get_lost:
            self.lost.append(partial(hear, answer))
        else:
            hear(answer)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


@pytest.fixture
async def waiter(redis_url: str, answers: Answers) -> AsyncIterator[Waiter]:
    waiter = Waiter(redis_url)
    await waiter.next_due()
    yield waiter
    await waiter.driver.close()


class Heard:
    """What everybody is told: that there are jobs."""

    def __init__(self, url: str) -> None:
        self._client = AsyncClient.from_url(url)
        self._subscription = self._client.pubsub()

    async def listen(self) -> None:
        await self._subscription.subscribe(CHANNEL)
        await self._subscription.get_message(timeout=30)

    async def something(self) -> bool:
        return await self._subscription.get_message(timeout=30) is not None

    async def anything(self) -> bool:
        return await self._subscription.get_message(timeout=0.1) is not None

    async def close(self) -> None:
        await self._subscription.aclose()
        await self._client.aclose()


@pytest.fixture
async def heard(redis_url: str) -> AsyncIterator[Heard]:
    heard = Heard(redis_url)
    await heard.listen()
    yield heard
    await heard.close()


async def only(driver: RedisDriver) -> StoredJob:
    [job] = await driver.jobs.list_jobs()
    return job


# --- what it gets


async def test_a_job_is_claimed_when_it_is_stored(waiter: Waiter, redis: RedisDriver, admin: Client) -> None:
    begun, sent = clock.now(), envelope(7)
    await waiter.next_due()
    await redis.jobs.insert([sent])
    await waiter.told()
    before = admin.info("stats")["total_commands_processed"]
    [claim] = await waiter.claim()
    assert admin.info("stats")["total_commands_processed"] == before + 1, "but for the question"
    assert (claim.fence.job_id, claim.payload, claim.attempt, claim.rescued) == (sent.id, sent.payload, 1, False)
    stored = await only(redis)
    assert stored.reserved_until is not None
    assert claim.deadline >= begun + LEASE
    left_there = (stored.reserved_until - await redis.now()).total_seconds()
    assert claim.deadline - clock.now() <= left_there
    settled = await waiter.driver.jobs.settle([Settlement.completed(claim.fence)])
    assert len(settled.accepted) == 1


async def test_nobody_else_is_told_of_it(waiter: Waiter, redis: RedisDriver, heard: Heard) -> None:
    await redis.jobs.insert([envelope()])
    await waiter.told()
    assert not await heard.anything()
    await redis.jobs.insert([envelope()])
    assert await heard.something(), "nobody waits any more"


async def test_several_are_announced_and_claimed_together(waiter: Waiter, redis: RedisDriver, heard: Heard) -> None:
    await redis.jobs.insert([envelope(priority=7), envelope(priority=3), envelope(priority=5)])
    assert await heard.something()
    assert not waiter.woken.is_set()
    assert [claim.priority for claim in await waiter.claim()] == [3, 5, 7]


async def test_jobs_of_other_queues_are_not_for_it(waiter: Waiter, redis: RedisDriver, heard: Heard) -> None:
    await redis.jobs.insert([envelope(queue="a")])
    assert await heard.something()
    assert not waiter.woken.is_set()


async def test_what_waited_longer_goes_first(waiter: Waiter, redis: RedisDriver, heard: Heard) -> None:
    """A job that became due while nobody looked is claimed before the one that was just stored."""
    delayed, now = envelope(1, delay=0.05), envelope(2)
    await redis.jobs.insert([delayed])
    await heard.anything()
    await asyncio.sleep(0.1)
    await redis.jobs.insert([now])
    await waiter.told()
    assert [claim.fence.job_id for claim in await waiter.claim()] == [delayed.id]
    assert await heard.something()


async def test_delayed_jobs_and_paused_queues_leave_it_waiting(
    waiter: Waiter, redis: RedisDriver, heard: Heard
) -> None:
    await redis.jobs.insert([envelope(delay=60)])
    await redis.queues.pause("default")
    await redis.jobs.insert([envelope()])
    assert await heard.something()
    assert not waiter.woken.is_set()
    await redis.queues.resume("default")
    await redis.jobs.insert([envelope()])
    await waiter.told()
    assert len(await waiter.claim()) == 1


async def test_each_of_two_gets_one(waiter: Waiter, redis: RedisDriver, redis_url: str) -> None:
    other = Waiter(redis_url)
    await other.next_due()
    await redis.jobs.insert([envelope(1)])
    await redis.jobs.insert([envelope(2)])
    await asyncio.gather(waiter.told(), other.told())
    [mine], [theirs] = await waiter.claim(), await other.claim()
    assert mine.fence.job_id != theirs.fence.job_id
    await other.driver.close()


async def test_a_relayed_job_is_for_it_as_well(waiter: Waiter, redis: RedisDriver, heard: Heard) -> None:
    relayed = envelope()
    await redis.relay_target.insert_once([relayed])
    await waiter.told()
    assert [claim.fence.job_id for claim in await waiter.claim()] == [relayed.id]
    assert not await heard.anything()
    await waiter.next_due()
    await redis.relay_target.insert_once([relayed])
    assert not waiter.woken.is_set(), "it was stored before"
    await redis.relay_target.insert_once(envelopes(2))
    assert await heard.something()


async def test_it_waits_on_look_after_look_and_is_given_one_job(
    waiter: Waiter, redis: RedisDriver, admin: Client
) -> None:
    for _ in range(3):
        begun = clock.now()
        assert await waiter.next_due() == NextDue(None)
    assert admin.zcard(key("default", "standing")) == 1
    await redis.jobs.insert([envelope(1)])
    await redis.jobs.insert([envelope(2)])
    await waiter.told()
    assert await waiter.next_due() == NextDue(0.0), "a claim is worth its while"
    [claim] = await waiter.claim()
    assert claim.deadline >= begun + LEASE, "it was not carried out before that look"
    assert len(await waiter.claim()) == 1


async def test_a_claim_of_something_else_ends_it(waiter: Waiter, redis: RedisDriver, admin: Client) -> None:
    assert await waiter.claim() == []
    assert not admin.exists(key("default", "standing"))
    await redis.jobs.insert([envelope()])
    assert not waiter.woken.is_set()
    begun = clock.now()
    [claim] = await waiter.claim()
    assert begun + LEASE <= claim.deadline <= clock.now() + LEASE


async def test_a_worker_that_waits_no_more_gets_nothing(waiter: Waiter, redis: RedisDriver, admin: Client) -> None:
    assert await waiter.driver.blocking_claims.cancel() == []
    assert not admin.exists(key("default", "standing"))
    await redis.jobs.insert([envelope()])
    assert not waiter.woken.is_set()
    assert await waiter.driver.blocking_claims.cancel() == []
    assert len(await waiter.claim()) == 1


async def test_it_is_left_with_what_it_was_given_before(waiter: Waiter, redis: RedisDriver) -> None:
    await redis.jobs.insert([envelope()])
    await waiter.told()
    assert len(await waiter.driver.blocking_claims.cancel()) == 1
    assert await waiter.driver.blocking_claims.cancel() == []


# --- answers that are not heard


async def test_an_answer_that_was_not_heard_is_asked_for_after_the_next_look(
    waiter: Waiter, redis: RedisDriver, answers: Answers
) -> None:
    answers.get_lost = True
    sent = envelope()
    await redis.jobs.insert([sent])
    assert await waiter.next_due() == NextDue(0.0)
    [claim] = await waiter.claim()
    assert (claim.fence.job_id, claim.attempt, claim.rescued) == (sent.id, 1, False)
    stored = await only(redis)
    assert stored.reserved_until is not None
    left_there = (stored.reserved_until - await redis.now()).total_seconds()
    assert claim.deadline - clock.now() <= left_there
    assert await waiter.next_due() != NextDue(0.0)
    [tell_late] = answers.lost
    tell_late()
    assert not waiter.woken.is_set()
    assert await waiter.claim() == [], "another one stood by then"
    assert len((await waiter.driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


async def test_or_by_whoever_withdraws(waiter: Waiter, redis: RedisDriver, answers: Answers) -> None:
    answers.get_lost = True
    await redis.jobs.insert([envelope()])
    await redis.jobs.insert([envelope()])
    [claim] = await waiter.driver.blocking_claims.cancel()
    assert claim.attempt == 1
    assert len(await waiter.claim()) == 1


async def test_a_listener_that_went_away_is_given_nothing(
    waiter: Waiter, redis: RedisDriver, admin: Client, heard: Heard
) -> None:
    admin.client_kill_filter(_type="pubsub", skipme=False)
    await heard.close()
    await redis.jobs.insert([envelope()])
    [claim] = await redis.jobs.claim(["default"], 10, LEASE)
    await redis.jobs.settle([Settlement.completed(claim.fence)])
    # The next look listens again, and the one after the claim lets it stand anew.
    assert await waiter.next_due() == NextDue(0.0)
    assert await waiter.claim() == []
    assert await waiter.next_due() == NextDue(None)
    await redis.jobs.insert([envelope()])
    await waiter.told()
    assert len(await waiter.claim()) == 1


async def test_it_ends_with_the_time_that_its_worker_has_for_the_next_look(
    redis: RedisDriver, redis_url: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the lease, at most two seconds: what a machine is given that was lost since, waits for its lease."""
    monkeypatch.undo()  # `lasting_claims`
    waiter = Waiter(redis_url, lease=1.0)
    await waiter.next_due()
    await asyncio.sleep(0.15)
    await redis.jobs.insert([envelope()])
    assert await heard.something()
    assert not waiter.woken.is_set()
    assert len(await waiter.claim()) == 1
    await waiter.driver.close()


async def test_of_a_worker_that_died_nothing_is_left(waiter: Waiter, redis: RedisDriver, admin: Client) -> None:
    """Not even in a queue in which nothing is stored any more, whatever its claim was popped and put back for."""
    pending_claims = key("default", "standing")
    assert 0 < admin.pttl(pending_claims) <= 60_000
    await redis.jobs.insert([envelope(delay=60)])
    assert admin.zcard(pending_claims) == 1
    assert 0 < admin.pttl(pending_claims) <= 60_000
    await redis.relay_target.insert_once([envelope(delay=60)])
    assert 0 < admin.pttl(pending_claims) <= 60_000


async def test_the_server_forgets_it_with_everything_else(waiter: Waiter, redis: RedisDriver, admin: Client) -> None:
    admin.flushall()
    admin.script_flush()
    assert await waiter.next_due() == NextDue(0.0)
    assert await waiter.claim() == []
    assert await waiter.next_due() == NextDue(None)
    await redis.jobs.insert([envelope()])
    await waiter.told()
    assert len(await waiter.claim()) == 1


# --- calls whose answers are lost


@pytest.fixture
async def between(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy(redis_url) as network:
        yield network


async def test_a_look_whose_answer_was_lost_does_not_begin_anew(
    between: Proxy, redis: RedisDriver, admin: Client, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood, and was carried out before the look is repeated."""
    waiter = Waiter(between.url)
    await waiter.next_due()
    assert admin.exists(key("default", "standing"))
    assert await waiter.driver.blocking_claims.cancel() == []
    answers.get_lost = True
    start_over = waiter.driver.store.start_over

    async def meanwhile(error: Exception) -> None:
        await redis.jobs.insert([envelope()])
        await start_over(error)

    monkeypatch.setattr(waiter.driver.store, "start_over", meanwhile)
    between.lose_the_next_answer()
    assert await waiter.next_due() == NextDue(0.0)
    assert between.lost == 1
    assert not admin.exists(key("default", "standing"))
    [claim] = await waiter.claim()
    assert claim.attempt == 1
    await waiter.driver.close()


async def test_a_claim_whose_answer_was_lost_finds_what_either_try_took(
    between: Proxy, redis: RedisDriver, answers: Answers
) -> None:
    waiter = Waiter(between.url)
    await waiter.next_due()
    answers.get_lost = True
    await redis.jobs.insert([envelope()])
    await redis.jobs.insert(envelopes(2))
    between.lose_the_next_answer()
    claims = await waiter.claim()
    assert between.lost == 1
    claims += await waiter.claim()
    assert [claim.attempt for claim in claims] == [1, 1, 1]
    assert len({claim.fence.job_id for claim in claims}) == 3
    await waiter.driver.close()


async def test_a_claim_that_failed_is_followed_by_one_that_asks(
    redis: RedisDriver, waiter: Waiter, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.get_lost = True
    await redis.jobs.insert([envelope()])

    async def refuse(_: object) -> None:
        raise BackendUnavailable("out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(waiter.driver.store, "send", refuse)
        with pytest.raises(BackendUnavailable):
            await waiter.claim()
    [claim] = await waiter.claim()
    assert claim.attempt == 1


@pytest.mark.parametrize("withdraws", [False, True])
async def test_what_was_heard_while_a_late_claim_missed_it_is_collected(
    redis: RedisDriver, waiter: Waiter, monkeypatch: pytest.MonkeyPatch, withdraws: bool
) -> None:
    """A claim looks for what was taken among leases that end within a second of when they should."""
    send = waiter.driver.store.send
    sent = envelope()

    async def late(call: Call) -> Any:
        await redis.jobs.insert([sent])
        await waiter.told()
        await asyncio.sleep(1.5)
        return await send(call)

    with monkeypatch.context() as patch:
        patch.setattr(waiter.driver.store, "send", late)
        claims = await (waiter.driver.blocking_claims.cancel() if withdraws else waiter.claim())
    if not withdraws:
        assert claims == []
        assert (await waiter.next_due()).due == 0.0
        claims = await waiter.claim()
    [claim] = claims
    assert (claim.fence.job_id, claim.attempt) == (sent.id, 1)
    assert len((await waiter.driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


# --- where it cannot be had


async def test_a_user_who_may_not_listen_is_told_as_before(
    redis: RedisDriver, admin: Client, redis_url: str, heard: Heard
) -> None:
    admin.acl_setuser("deaf", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], reset=True)
    waiter = Waiter(redis_url.replace("redis://", "redis://deaf:secret@"))
    try:
        assert await waiter.next_due() == NextDue(None)
        await redis.jobs.insert([envelope()])
        assert await heard.something()
        assert len(await waiter.claim()) == 1
    finally:
        await waiter.driver.close()
        admin.acl_deluser("deaf")


async def test_a_dispatcher_who_may_not_publish_leaves_it_to_the_next_look(
    waiter: Waiter, admin: Client, redis_url: str
) -> None:
    admin.acl_setuser("mute", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], reset=True)
    dispatcher = RedisDriver(redis_url.replace("redis://", "redis://mute:secret@"))
    try:
        await dispatcher.jobs.insert([envelope()])
        assert await waiter.next_due() == NextDue(0.0)
        [claim] = await waiter.claim()
        assert claim.attempt == 1
    finally:
        await dispatcher.close()
        admin.acl_deluser("mute")


# --- in a worker


async def claim_is_pending(admin: Client) -> None:
    """A worker that has looked before its job ended asks for one with its next look."""
    async with asyncio.timeout(30):
        while admin.zcard(key("default", "standing")) == 0:
            await asyncio.sleep(0.01)


async def test_an_idle_worker_runs_a_job_without_asking_for_it(
    redis: RedisDriver,
    redis_url: str,
    admin: Client,
    migrated_sqlite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = databases.fresh_file(tmp_path, migrated_sqlite)
    asked: list[bytes] = []
    say, claim = RawConnection.say, CLAIM([]).words[1].encode()

    def watched(line: RawConnection, data: bytes) -> None:
        if claim in data:
            asked.append(data)
        say(line, data)

    monkeypatch.setattr(RawConnection, "say", watched)
    async with working(database, redis_url=redis_url, connection="redis", lease=LEASE) as worker:
        assert asked
        asked.clear()
        for _ in range(3):
            await claim_is_pending(admin)
            arrival = Arrival()
            await redis.jobs.insert([serialize(arrival.job, JobOptions())])
            assert await arrival() == "default"
            assert asked == []
            await worker.idle()
        assert await redis.jobs.list_jobs() == []


async def test_a_worker_that_stops_gives_back_what_was_taken_for_it(
    redis: RedisDriver, redis_url: str, migrated_sqlite: Path, tmp_path: Path, answers: Answers
) -> None:
    """It was asked to stop before it heard of that."""
    database = databases.fresh_file(tmp_path, migrated_sqlite)
    answers.get_lost = True
    async with working(database, redis_url=redis_url, connection="redis", lease=LEASE):
        await redis.jobs.insert([serialize(Arrival().job, JobOptions())])
        assert (await only(redis)).state is JobState.RESERVED
    job = await only(redis)
    assert (job.state, job.attempts) == (JobState.READY, 0)
