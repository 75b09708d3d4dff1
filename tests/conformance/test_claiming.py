"""What a claim takes, in which order, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from outbox.drivers.base import Driver
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes, wait_for_a_job, wait_no_more


async def test_a_claim_gives_back_what_was_inserted(driver: Driver) -> None:
    sent = envelope(7, priority=3)
    await driver.jobs.insert([sent])
    claim = await claim_one(driver)
    assert (claim.fence.job_id, claim.queue, claim.name, claim.priority) == (sent.id, "default", "tests.Job", 3)
    assert json.loads(claim.payload) == {"number": 7}
    assert json.loads(claim.headers) == {}
    assert (claim.attempt, claim.rescued) == (1, False)


async def test_an_empty_queue_gives_nothing(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(3, queue="other"))
    assert await driver.jobs.claim(["default"], 10, 30) == []


async def test_jobs_are_taken_by_priority_and_then_in_the_order_of_their_dispatch(driver: Driver) -> None:
    late_but_urgent = envelope(9, priority=0)
    first, second = envelope(1), envelope(2)
    unimportant = envelope(3, priority=9)
    for job in (unimportant, first, second, late_but_urgent):
        await driver.jobs.insert([job])
    taken = [(await claim_one(driver)).fence.job_id for _ in range(4)]
    assert taken == [job.id for job in (late_but_urgent, first, second, unimportant)]


async def test_all_ten_priorities_are_claimable(driver: Driver) -> None:
    await driver.jobs.insert([envelope(priority, priority=priority) for priority in reversed(range(10))])
    assert sorted(claim.priority for claim in await driver.jobs.claim(["default"], 20, 30)) == list(range(10))


async def test_a_job_is_found_whatever_waits_or_is_held_beside_it(driver: Driver) -> None:
    await driver.jobs.insert(
        [envelope(1, priority=3), envelope(2, priority=0, delay=600), envelope(3, priority=9, delay=600)]
    )
    assert [claim.priority for claim in await driver.jobs.claim(["default"], 10, 30)] == [3]
    await driver.jobs.insert([envelope(4, priority=9), envelope(5, priority=4)])
    assert [claim.priority for claim in await driver.jobs.claim(["default"], 10, 30)] == [4, 9]


async def test_an_earlier_queue_goes_first_whatever_the_priorities(driver: Driver) -> None:
    await driver.jobs.insert([envelope(1, queue="low", priority=0), envelope(2, queue="high", priority=9)])
    await driver.jobs.insert([envelope(3, queue="unasked")])
    claims = await driver.jobs.claim(["high", "low"], 10, 30)
    assert [claim.queue for claim in claims] == ["high", "low"]
    assert len({claim.fence.token for claim in claims}) == 1, "one call is one token"


async def test_no_more_than_the_limit_is_taken(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(10))
    assert len(await driver.jobs.claim(["default"], 4, 30)) == 4
    assert len(await driver.jobs.claim(["default"], 10, 30)) == 6


async def test_each_call_writes_a_token_of_its_own(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(4))
    tokens = {claim.fence.token for _ in range(4) for claim in await driver.jobs.claim(["default"], 1, 30)}
    assert len(tokens) == 4


async def test_what_is_held_is_not_given_to_another(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert(envelopes(2))
    held = await claim_one(driver)
    assert [claim.fence.job_id for claim in await other.jobs.claim(["default"], 10, 30)] != [held.fence.job_id]
    assert await other.jobs.claim(["default"], 10, 30) == []


async def test_a_delayed_job_is_not_given_before_its_time(driver: Driver) -> None:
    await driver.jobs.insert([envelope(delay=3600)])
    assert await driver.jobs.claim(["default"], 10, 30) == []
    due = (await driver.jobs.next_due(["default"])).due
    assert due is not None
    assert 3590 < due <= 3600.1


async def test_an_absolute_time_in_the_past_is_due_at_once(driver: Driver) -> None:
    await driver.jobs.insert([envelope(available_at=datetime.now(UTC) - timedelta(days=1))])
    await claim_one(driver)


async def test_an_absolute_time_counts_in_its_own_zone(driver: Driver) -> None:
    from datetime import timezone

    tomorrow_elsewhere = datetime.now(timezone(timedelta(hours=-11))) + timedelta(hours=24)
    await driver.jobs.insert([envelope(available_at=tomorrow_elsewhere)])
    due = (await driver.jobs.next_due(["default"])).due
    assert due is not None
    assert abs(due - 86_400) < 60


async def test_a_look_finds_the_earliest_of_all_queues_and_priorities(driver: Driver) -> None:
    assert (await driver.jobs.next_due(["a", "b"])).due is None
    await driver.jobs.insert([envelope(queue="a", delay=500), envelope(queue="b", delay=100, priority=9)])
    await driver.jobs.insert([envelope(queue="c", delay=10)])
    due = (await driver.jobs.next_due(["a", "b"])).due
    assert due is not None
    assert 90 < due <= 100.1


async def test_an_insert_that_is_repeated_makes_no_second_job(driver: Driver) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    await driver.jobs.insert([job, envelope(1)])
    assert len(await driver.jobs.claim(["default"], 10, 30)) == 2


async def test_thousands_are_inserted_and_claimed_whole(driver: Driver) -> None:
    sent = envelopes(2_500)
    await driver.jobs.insert(sent)
    claims = await driver.jobs.claim(["default"], 5_000, 30)
    assert [claim.fence.job_id for claim in claims] == [job.id for job in sent]
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 2_500
    assert await driver.queues.counts() == []


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope(queue="a"), envelope(queue="b")])
    await other.queues.pause("a")
    assert [claim.queue for claim in await driver.jobs.claim(["a", "b"], 10, 30)] == ["b"]
    assert await driver.jobs.claim(["a"], 10, 30) == []
    await other.queues.resume("a")
    assert [claim.queue for claim in await driver.jobs.claim(["a", "b"], 10, 30)] == ["a"]


@pytest.mark.parametrize("jobs", [1, 3])
async def test_a_worker_that_waits_gets_every_job_once(driver: Driver, other: Driver, jobs: int) -> None:
    """Whether one of them was taken for it when it was stored, or all by its claim."""
    woken = asyncio.Event()
    await wait_for_a_job(driver, ["default", "low"], woken.set)
    await other.jobs.insert(envelopes(jobs))
    claims = await driver.jobs.claim(["default", "low"], 10, 30)
    claims += await driver.jobs.claim(["default", "low"], 10, 30)
    assert [claim.attempt for claim in claims] == [1] * jobs
    assert len({claim.fence.job_id for claim in claims}) == jobs
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])).accepted) == jobs


async def test_a_worker_that_waits_no_more_returns_what_was_taken_for_it(driver: Driver, other: Driver) -> None:
    assert await wait_no_more(driver) == []
    await wait_for_a_job(driver, ["default"], lambda: None)
    await other.jobs.insert([envelope()])
    taken = await wait_no_more(driver)
    await other.jobs.insert([envelope()])
    assert await wait_no_more(driver) == []
    rest = await other.jobs.claim(["default"], 10, 30)
    assert len({claim.fence.job_id for claim in (*taken, *rest)}) == 2
