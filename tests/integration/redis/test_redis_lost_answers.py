"""A call whose answer was lost is repeated, and the second time changes nothing that the first did."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from redis import Redis as Client
from redis import exceptions

from outbox import clock
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.connection import url as addresses
from outbox.drivers.redis.script import Call
from outbox.drivers.values import Claim, JobState
from outbox.errors import BackendUnavailable
from outbox.settlement import Fence, InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.servers import LocalServer
from tests.support.redis_clusters import wait_for
from tests.support.redis_proxy import Proxy, proxy

HOUR = 3600.0


@pytest.fixture
async def between(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy(redis_url) as network:
        yield network


@pytest.fixture
async def driver(between: Proxy) -> AsyncIterator[RedisDriver]:
    """Behind the network, with its one connection already made, so that the next answer is that of a verb."""
    driver = RedisDriver(between.url)
    await driver.now()
    yield driver
    await driver.close()


# --- claims


async def test_a_claim_returns_what_it_took_when_its_answer_was_lost(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    sent = envelopes(20)
    await other.jobs.insert(sent)
    between.lose_the_next_answer()
    claims = await driver.jobs.claim(["default"], 5, 30)
    assert between.lost == 1
    assert [claim.fence.job_id for claim in claims] == [job.id for job in sent[:5]]
    assert {(claim.attempt, claim.rescued) for claim in claims} == {(1, False)}
    [counts] = await other.queues.counts()
    assert (counts.reserved, counts.ready) == (5, 15), "the repeated claim took more"
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])).accepted) == 5


async def test_it_does_not_take_what_another_claimed_at_the_same_time(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert(envelopes(10))
    theirs = await other.jobs.claim(["default"], 5, 30)
    between.lose_the_next_answer()
    mine = await driver.jobs.claim(["default"], 5, 30)
    assert between.lost == 1
    assert not {claim.fence.job_id for claim in mine} & {claim.fence.job_id for claim in theirs}
    assert len(mine) == 5


async def test_a_claim_that_had_not_arrived_is_simply_made(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert(envelopes(3))
    between.hang_up()
    assert len(await driver.jobs.claim(["default"], 5, 30)) == 3


async def test_a_recovered_claim_still_says_that_it_was_rescued(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    await claim_one(other, lease=0)
    between.lose_the_next_answer()
    claim = await claim_one(driver)
    assert between.lost == 1
    assert (claim.attempt, claim.rescued) == (2, True)


async def test_its_deadline_is_that_of_the_lease_which_the_first_try_took(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    between.lose_the_next_answer()
    claim = await claim_one(driver, lease=30)
    job = await other.jobs.get(claim.fence.job_id)
    assert job is not None
    assert job.reserved_until is not None
    left_there = (job.reserved_until - await other.now()).total_seconds()
    left_here = claim.deadline - clock.now()
    assert left_here <= left_there


async def lost_in_an_outage(driver: RedisDriver, between: Proxy, queues: list[str], limit: int, lease: float) -> None:
    """A claim is carried out, and its driver does not hear of that."""
    between.go_away_with_the_next_answer()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(queues, limit, lease)
    assert between.lost == 1
    between.come_back()


@pytest.mark.parametrize("ended", [False, True])
async def test_a_claim_that_was_given_up_is_found_by_the_next_one(
    driver: RedisDriver, other: RedisDriver, between: Proxy, ended: bool
) -> None:
    """Whether its lease has ended meanwhile or not: nobody has run it, so that no attempt was made."""
    sent = envelopes(2)
    await other.jobs.insert(sent)
    lease = 0.5 if ended else 30
    await lost_in_an_outage(driver, between, ["default"], 2, lease)
    assert (await driver.jobs.next_due(["default"])).due == 0.0, "a claim is worth its while"
    while ended and (await other.jobs.next_due(["default"])).due != 0.0:
        await asyncio.sleep(0.05)
    claims = await driver.jobs.claim(["default"], 10, 30)
    assert [(claim.fence.job_id, claim.attempt, claim.rescued) for claim in claims] == [
        (job.id, 1, False) for job in sent[:2]
    ]
    assert min(claim.deadline for claim in claims) > clock.now()
    later = envelopes(1)
    await other.jobs.insert(later)
    [rest] = await driver.jobs.claim(["default"], 10, 30)
    assert rest.fence.token != claims[0].fence.token
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in [*claims, rest]])
    assert len(settled.accepted) == 3


async def test_what_the_next_claim_has_no_room_for_is_put_back_as_it_was(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert(envelopes(3))
    await lost_in_an_outage(driver, between, ["default"], 3, 30)
    first = await claim_one(driver)
    rest = await other.jobs.claim(["default"], 10, 30)
    assert [claim.attempt for claim in [first, *rest]] == [1, 1, 1]
    assert {claim.rescued for claim in rest} == {False}


async def test_a_claim_that_was_given_up_is_not_found_where_another_owner_has_the_job(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    await lost_in_an_outage(driver, between, ["default"], 1, 0)
    owner = await claim_one(other)
    assert await driver.jobs.claim(["default"], 10, 30) == []
    assert len((await other.jobs.settle([Settlement.completed(owner.fence)])).accepted) == 1


async def test_a_claim_of_a_later_queue_is_found_although_nothing_is_due_there(
    driver: RedisDriver, other: RedisDriver, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.jobs.insert([envelope(queue="b")])
    do_all = driver.store.do_all

    async def arm(calls: Sequence[Call]) -> list[Any]:
        answers = await do_all(calls)
        if answers == [1]:
            between.go_away_with_the_next_answer()
        return answers

    with monkeypatch.context() as patch, pytest.raises(BackendUnavailable):
        patch.setattr(driver.store, "do_all", arm)
        await driver.jobs.claim(["a", "b"], 10, 30)
    between.come_back()
    [claim] = await driver.jobs.claim(["a", "b"], 10, 30)
    assert (claim.queue, claim.attempt) == ("b", 1)


async def test_an_outage_behind_the_first_queue_is_told_and_costs_its_jobs_no_attempt(
    driver: RedisDriver, other: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.jobs.insert([envelope(queue="a"), envelope(queue="b")])

    async def refuse(_: object) -> None:
        raise BackendUnavailable("out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(driver.store, "do_all", refuse)
        with pytest.raises(BackendUnavailable):
            await driver.jobs.claim(["a", "b"], 10, 30)
        [claim] = await driver.jobs.claim(["a", "b"], 10, 30)
        assert (claim.queue, claim.attempt, claim.rescued) == ("a", 1, False)
        with pytest.raises(BackendUnavailable):
            await driver.jobs.claim(["a", "b"], 10, 30)
    [claim] = await driver.jobs.claim(["a", "b"], 10, 30)
    assert (claim.queue, claim.attempt) == ("b", 1)


async def test_a_driver_that_is_closed_puts_back_what_it_never_heard_of(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    await lost_in_an_outage(driver, between, ["default"], 1, 30)
    await driver.close()
    claim = await claim_one(other)
    assert (claim.attempt, claim.rescued) == (1, False)


async def test_a_claim_that_is_cancelled_under_way_is_asked_for_by_the_next_one(redis_url: str) -> None:
    driver = RedisDriver(redis_url)
    assert await driver.jobs.claim(["default"], 1, 30) == [], "the server knows the script"
    await driver.jobs.insert([envelope()])
    claiming = asyncio.create_task(driver.jobs.claim(["default"], 1, 30))
    # It is sent when the store has no connection at rest any more.
    while driver.store.idle:
        await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.wait([claiming])
    with Client.from_url(redis_url) as admin:
        wait_for(lambda: admin.hlen("outbox:{default}:held") == 1, "the server has carried it out")
    claim = await claim_one(driver)
    assert (claim.attempt, claim.rescued) == (1, False)
    await driver.close()


# --- the ends of attempts

ENDS: dict[str, Callable[[Fence], Settlement]] = {
    "completed": Settlement.completed,
    "cancelled": Settlement.cancelled,
    "failed": lambda fence: Settlement.failed(fence, FAILURE),
    "retried": lambda fence: Settlement.retried(fence, HOUR, FAILURE),
    "released": Settlement.released,
    "snoozed": lambda fence: Settlement.snoozed(fence, HOUR),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_whose_answer_was_lost_is_written_once_and_accepted(
    driver: RedisDriver, other: RedisDriver, between: Proxy, end: str
) -> None:
    await other.jobs.insert([envelope()])
    claim = await claim_one(driver)
    settlement = ENDS[end](claim.fence)
    between.lose_the_next_answer()
    settled = await driver.jobs.settle([settlement])
    assert between.lost == 1
    assert settled.accepted == (settlement,)
    job = await other.jobs.get(claim.fence.job_id)
    assert len(await other.failed.page()) == (end == "failed")
    if end in {"completed", "cancelled", "failed"}:
        assert job is None
    else:
        assert job is not None
        assert job.attempts == (0 if end == "snoozed" else 1)
        waits = JobState.RETRYING if end == "retried" else JobState.DELAYED
        assert job.state is (JobState.READY if end == "released" else waits)


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_whose_answer_was_lost_in_an_outage_is_accepted_when_it_is_repeated(
    driver: RedisDriver, other: RedisDriver, between: Proxy, end: str
) -> None:
    await other.jobs.insert(envelopes(2))
    claims = await driver.jobs.claim(["default"], 2, 30)
    settlement, not_written = ENDS[end](claims[0].fence), Settlement.completed(claims[1].fence)
    between.go_away_with_the_next_answer()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.settle([settlement])
    assert between.lost == 1
    between.come_back()
    assert await other.jobs.cancel([claims[1].fence.job_id]) == [claims[1].fence.job_id]
    settled = await driver.jobs.settle([settlement, not_written])
    assert (settled.accepted, settled.stale) == ((settlement,), (not_written,))
    assert len(await other.failed.page()) == (end == "failed")


async def test_an_end_that_never_arrived_is_refused_where_its_job_is_gone(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    claim = await claim_one(driver)
    await driver.store.close_idle()
    between.go_away()
    settlement = Settlement.completed(claim.fence)
    with pytest.raises(BackendUnavailable):
        await driver.jobs.settle([settlement])
    between.come_back()
    await other.jobs.cancel([claim.fence.job_id])
    assert (await driver.jobs.settle([settlement])).stale == (settlement,)


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_that_was_refused_stays_refused_when_the_answer_is_lost(
    driver: RedisDriver, other: RedisDriver, between: Proxy, end: str
) -> None:
    await other.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    owner = await claim_one(other)
    before = await other.jobs.get(lost.fence.job_id)
    between.lose_the_next_answer()
    settled = await driver.jobs.settle([ENDS[end](lost.fence)])
    assert between.lost == 1
    assert settled.accepted == ()
    assert await other.jobs.get(lost.fence.job_id) == before
    assert len((await other.jobs.settle([Settlement.completed(owner.fence)])).accepted) == 1


async def test_an_end_whose_job_another_has_put_back_stays_refused(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    owner = await claim_one(other)
    await other.jobs.settle([Settlement.released(owner.fence)])
    between.lose_the_next_answer()
    assert (await driver.jobs.settle([Settlement.retried(lost.fence, 0, FAILURE)])).accepted == ()


async def test_several_queues_at_once_are_repeated_as_a_whole(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope(queue="a"), envelope(queue="b")])
    claims: list[Claim] = await driver.jobs.claim(["a", "b"], 2, 30)
    follow_up = envelope(queue="c")
    settlements = [
        Settlement.completed(claims[0].fence, (InsertJobs((follow_up,)),)),
        Settlement.completed(claims[1].fence),
    ]
    between.lose_the_next_answer()
    assert (await driver.jobs.settle(settlements)).accepted == tuple(settlements)
    assert between.lost == 1
    assert [job.id for job in await other.jobs.list_jobs()] == [follow_up.id]


# --- the rest


async def test_an_insert_whose_answer_was_lost_makes_no_second_job(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    between.lose_the_next_answer()
    await driver.jobs.insert(envelopes(3))
    assert between.lost == 1
    assert len(await other.jobs.list_jobs()) == 3


async def test_a_renewal_whose_answer_was_lost_is_made_again(
    driver: RedisDriver, other: RedisDriver, between: Proxy
) -> None:
    await other.jobs.insert([envelope()])
    claim = await claim_one(driver, lease=0)
    between.lose_the_next_answer()
    assert (await driver.jobs.extend([claim.fence], 30)).kept == {claim.fence}
    assert between.lost == 1
    assert await other.jobs.claim(["default"], 1, 30) == []


async def test_a_server_that_froze_is_unavailable_before_leases_end(
    local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.2)
    driver = RedisDriver(local_redis.url)
    await driver.jobs.insert([envelope()])
    assert local_redis.pid
    os.kill(local_redis.pid, signal.SIGSTOP)
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await driver.jobs.claim(["default"], 1, 30)
    os.kill(local_redis.pid, signal.SIGCONT)
    await driver.close()


async def test_connections_that_lead_nowhere_are_given_up_together(
    redis_url: str, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each of them would cost a call its patience."""
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 2.0)
    driver = RedisDriver(between.url)
    send, timeouts = driver.store.send, 0

    async def counted(call: Call) -> Any:
        nonlocal timeouts
        try:
            return await send(call)
        except exceptions.TimeoutError:
            timeouts += 1
            raise

    monkeypatch.setattr(driver.store, "send", counted)
    await asyncio.gather(*(driver.jobs.insert([job]) for job in envelopes(8)))
    between.stall()
    await driver.jobs.insert([envelope()])
    await asyncio.gather(*(driver.jobs.insert([job]) for job in envelopes(8)))
    assert timeouts == 1
    assert len(await driver.jobs.list_jobs()) == 17
    await driver.close()


def test_the_answer_is_not_waited_for_longer_than_a_third_of_the_default_lease() -> None:
    assert addresses.ANSWER_SECONDS <= 30 / 3
