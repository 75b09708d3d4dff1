"""G2, G6, G7: every end of an attempt, written once and whole."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.values import JobState
from outbox.settlement import Failure, Fence, InsertJobs, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes


@pytest.mark.parametrize("end", [Settlement.completed, Settlement.cancelled])
async def test_a_finished_job_leaves_the_queue(driver: Driver, end: Callable[[Fence], Settlement]) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    settled = await driver.jobs.settle([end(claim.fence)])
    assert len(settled.accepted) == 1
    assert await driver.jobs.get(claim.fence.job_id) is None
    assert await driver.failed.page() == []


async def test_a_settlement_that_is_repeated_is_stale(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    done = Settlement.completed(claim.fence)
    assert (await driver.jobs.settle([done])).accepted == (done,)
    assert (await driver.jobs.settle([done])).stale == (done,)


async def test_nothing_to_settle_is_no_work(driver: Driver) -> None:
    settled = await driver.jobs.settle([])
    assert (settled.accepted, settled.stale) == ((), ())


async def test_a_retried_job_waits_for_its_delay_and_keeps_its_count(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.retried(claim.fence, 100, FAILURE)])
    job = await driver.jobs.get(claim.fence.job_id)
    assert job is not None
    assert (job.state, job.attempts, job.reserved_until) == (JobState.RETRYING, 1, None)
    due = (await driver.jobs.next_due(["default"])).due
    assert due is not None
    assert 90 < due <= 100.1


async def test_a_retry_without_delay_is_claimable_at_once(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.retried(claim.fence, 0, FAILURE)])
    again = await claim_one(driver)
    assert (again.attempt, again.rescued) == (2, False)


async def test_a_release_counts_the_attempt_and_a_snooze_gives_it_back(driver: Driver) -> None:
    await driver.jobs.insert([envelope(queue="released"), envelope(queue="snoozed")])
    released, snoozed = await claim_one(driver, "released"), await claim_one(driver, "snoozed")
    await driver.jobs.settle([Settlement.released(released.fence), Settlement.snoozed(snoozed.fence)])
    assert (await claim_one(driver, "released")).attempt == 2
    assert (await claim_one(driver, "snoozed")).attempt == 1


async def test_a_failed_job_moves_with_everything_it_had(driver: Driver) -> None:
    sent = envelope(3, queue="mail", priority=2)
    await driver.jobs.insert([sent])
    claim = await claim_one(driver, "mail")
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE)])
    assert await driver.jobs.get(sent.id) is None
    failed = await driver.failed.get(sent.id)
    assert failed is not None
    assert (failed.id, failed.queue, failed.name, failed.priority) == (sent.id, "mail", "tests.Job", 2)
    assert (failed.connection, failed.attempts, failed.failure) == (driver.name, 1, FAILURE)
    assert json.loads(failed.payload) == {"number": 3}


async def test_a_batch_of_every_kind_is_settled_together(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(12))
    claims = await driver.jobs.claim(["default"], 6, 30) + await driver.jobs.claim(["default"], 6, 30)
    ends = [
        Settlement.completed,
        Settlement.cancelled,
        lambda fence: Settlement.failed(fence, Failure("E", f"job {fence.job_id}", "")),
        lambda fence: Settlement.retried(fence, 1000, FAILURE),
        lambda fence: Settlement.released(fence, 2000),
        lambda fence: Settlement.snoozed(fence, 3000),
    ]
    settlements = [ends[position % 6](claim.fence) for position, claim in enumerate(claims)]
    settled = await driver.jobs.settle(settlements)
    assert len(settled.accepted) == 12
    left = {job.id: job for job in await driver.jobs.list_jobs()}
    assert set(left) == {claim.fence.job_id for position, claim in enumerate(claims) if position % 6 > 2}
    attempts = {3: 1, 4: 1, 5: 0}
    for position, claim in enumerate(claims):
        if position % 6 > 2:
            assert left[claim.fence.job_id].attempts == attempts[position % 6]
            wait = left[claim.fence.job_id].available_at - left[claim.fence.job_id].created_at
            assert wait.total_seconds() // 1000 == position % 6 - 2, "a job got the delay of another"
    failed = {job.id: job.failure.message for job in await driver.failed.page()}
    assert failed == {claim.fence.job_id: f"job {claim.fence.job_id}" for claim in claims[2::6]}


async def test_follow_ups_enter_with_the_completion(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    follow_up = envelope(1, queue="next")
    await driver.jobs.settle([Settlement.completed(claim.fence, (InsertJobs((follow_up,)),))])
    assert (await claim_one(driver, "next")).fence.job_id == follow_up.id


async def test_the_follow_ups_of_a_stale_settlement_do_not_enter(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    await claim_one(other)
    await driver.jobs.settle([Settlement.completed(lost.fence, (InsertJobs((envelope(1, queue="next"),)),))])
    assert await driver.jobs.claim(["next"], 10, 30) == []


@pytest.mark.parametrize(
    "text",
    ["nul \x00 in it", "four bytes 🐘", "quote ' double \" back \\ percent %s %(x)s", "x" * 7_999, "\ud800 alone"],
)
async def test_whatever_an_exception_says_is_stored(driver: Driver, text: str) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.failed(claim.fence, Failure.of(ValueError(text)))])
    failed = await driver.failed.get(claim.fence.job_id)
    assert failed is not None
    assert failed.failure.type == "ValueError"
    assert failed.failure.message == text.replace("\ud800", "\\ud800")


@pytest.mark.parametrize("text", ["\\u0000", "🐘", "\\ud83d\\udc18", "' \\\" \\\\ %s ? :x", "z" * 1_000_000])
async def test_payloads_come_back_as_they_were(driver: Driver, text: str) -> None:
    payload = f'{{"text": "{text}"}}'
    await driver.jobs.insert([envelope(payload=payload)])
    claim = await claim_one(driver)
    assert json.loads(claim.payload) == json.loads(payload)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE)])
    failed = await driver.failed.get(claim.fence.job_id)
    assert failed is not None
    assert json.loads(failed.payload) == json.loads(payload)
    assert await driver.failed.retry([claim.fence.job_id]) == [claim.fence.job_id]
    assert json.loads((await claim_one(driver)).payload) == json.loads(payload)


async def test_a_retried_failed_job_starts_anew_under_its_own_id(driver: Driver) -> None:
    await driver.jobs.insert([envelope(queue="mail", priority=1)])
    claim = await claim_one(driver, "mail", lease=0)
    claim = await claim_one(driver, "mail")
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE)])
    await driver.failed.retry([claim.fence.job_id])
    assert await driver.failed.get(claim.fence.job_id) is None
    again = await claim_one(driver, "mail")
    assert (again.fence.job_id, again.attempt, again.priority) == (claim.fence.job_id, 1, 1)
