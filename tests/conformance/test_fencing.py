"""G3, G4, G5: one owner while a lease is live, and a former owner changes nothing."""

from __future__ import annotations

import pytest

from outbox import clock
from outbox.drivers.base import Driver
from outbox.settlement import Fence, Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes

ENDED = 0.0
"""A lease that has ended when the claim returns."""

ENDS = {
    "completed": Settlement.completed,
    "cancelled": Settlement.cancelled,
    "failed": lambda fence: Settlement.failed(fence, FAILURE),
    "retried": lambda fence: Settlement.retried(fence, 0, FAILURE),
    "released": Settlement.released,
    "snoozed": Settlement.snoozed,
}


async def test_a_job_whose_lease_ended_is_claimable_again_and_the_attempt_counts(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    first = await claim_one(driver, lease=ENDED)
    second = await claim_one(other)
    assert second.fence.job_id == first.fence.job_id
    assert second.fence.token != first.fence.token
    assert (first.attempt, second.attempt) == (1, 2)
    assert (first.rescued, second.rescued) == (False, True)


@pytest.mark.parametrize("end", ENDS)
async def test_a_zombie_cannot_settle_a_job_it_lost(driver: Driver, other: Driver, end: str) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=ENDED)
    owner = await claim_one(other)
    before = await other.jobs.get(lost.fence.job_id)
    settlement = ENDS[end](lost.fence)
    settled = await driver.jobs.settle([settlement])
    assert settled.stale == (settlement,)
    assert settled.accepted == ()
    assert await other.jobs.get(lost.fence.job_id) == before, "the row was touched"
    assert await other.failed.page() == []
    accepted = await other.jobs.settle([Settlement.completed(owner.fence)])
    assert len(accepted.accepted) == 1, "the owner's fence was broken"


async def test_a_zombie_cannot_extend_the_lease_of_the_new_owner(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=ENDED)
    owner = await claim_one(other)
    before = await other.jobs.get(lost.fence.job_id)
    lease = await driver.jobs.extend([lost.fence], 3600)
    assert (lease.kept, lease.lost) == (frozenset(), {lost.fence})
    assert await other.jobs.get(lost.fence.job_id) == before
    assert (await other.jobs.extend([owner.fence], 30)).kept == {owner.fence}


async def test_a_zombie_cannot_revive_a_job_that_is_gone(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=ENDED)
    owner = await claim_one(other)
    await other.jobs.settle([Settlement.completed(owner.fence)])
    assert len((await driver.jobs.settle([Settlement.retried(lost.fence, 0, FAILURE)])).stale) == 1
    assert len((await driver.jobs.settle([Settlement.failed(lost.fence, FAILURE)])).stale) == 1
    assert (await driver.jobs.extend([lost.fence], 30)).lost == {lost.fence}
    assert await driver.jobs.claim(["default"], 10, 30) == []
    assert await driver.failed.page() == []


async def test_the_attempts_that_were_given_back_do_not_make_an_old_claim_current(
    driver: Driver, other: Driver
) -> None:
    """The reason why the fence is a token and not `attempts`: they can be the same again."""
    await driver.jobs.insert([envelope()])
    zombie = await claim_one(driver, lease=ENDED)
    second = await claim_one(other)
    await other.jobs.settle([Settlement.snoozed(second.fence, 0)])
    third = await claim_one(other)
    assert third.attempt == second.attempt
    assert len((await driver.jobs.settle([Settlement.completed(second.fence)])).stale) == 1
    assert len((await driver.jobs.settle([Settlement.completed(zombie.fence)])).stale) == 1
    assert len((await other.jobs.settle([Settlement.completed(third.fence)])).accepted) == 1


async def test_in_a_mixed_batch_only_the_lost_ones_are_refused(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope(queue="lost"), envelope(queue="kept"), envelope(queue="kept")])
    lost = await claim_one(driver, "lost", lease=ENDED)
    kept = await driver.jobs.claim(["kept"], 10, 30)
    await claim_one(other, "lost")
    settlements = [Settlement.completed(claim.fence) for claim in (kept[0], lost, kept[1])]
    settled = await driver.jobs.settle(settlements)
    assert [settlement.fence for settlement in settled.accepted] == [kept[0].fence, kept[1].fence]
    assert [settlement.fence for settlement in settled.stale] == [lost.fence]
    assert (await other.jobs.get(lost.fence.job_id)) is not None


async def test_within_one_claim_only_the_lost_ones_are_refused(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert(envelopes(3))
    claims = await driver.jobs.claim(["default"], 3, ENDED)
    taken = await claim_one(other)
    settled = await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 2
    assert [settlement.fence.job_id for settlement in settled.stale] == [taken.fence.job_id]


async def test_the_same_worker_claiming_its_lost_job_again_does_not_let_its_old_run_settle(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(2))
    first = await driver.jobs.claim(["default"], 2, ENDED)
    again = await claim_one(driver)
    still = next(claim for claim in first if claim.fence.job_id != again.fence.job_id)
    old = next(claim for claim in first if claim.fence.job_id == again.fence.job_id)
    settled = await driver.jobs.settle([Settlement.completed(old.fence), Settlement.completed(still.fence)])
    assert [settlement.fence for settlement in settled.stale] == [old.fence]
    assert (await driver.jobs.get(again.fence.job_id)) is not None


async def test_an_invented_token_opens_nothing(driver: Driver) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    forged = Fence(job.id, bytes(16))
    assert (await driver.jobs.extend([forged], 30)).lost == {forged}
    assert len((await driver.jobs.settle([Settlement.completed(forged)])).stale) == 1
    await claim_one(driver)


async def test_extending_keeps_a_job_past_its_first_lease(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver, lease=ENDED)
    lease = await driver.jobs.extend([claim.fence], 30)
    assert lease.kept == {claim.fence}
    assert lease.deadline > clock.now() + 25
    assert await other.jobs.claim(["default"], 10, 30) == []


async def test_extending_tells_the_kept_from_the_lost_in_one_call(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert(envelopes(3))
    claims = await driver.jobs.claim(["default"], 3, ENDED)
    taken = await claim_one(other)
    lease = await driver.jobs.extend([claim.fence for claim in claims], 30)
    assert {fence.job_id for fence in lease.lost} == {taken.fence.job_id}
    assert len(lease.kept) == 2


async def test_an_extended_lease_that_ends_frees_the_job(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    assert (await driver.jobs.extend([claim.fence], ENDED)).kept == {claim.fence}
    assert (await claim_one(other)).attempt == 2


async def test_the_deadline_is_counted_from_before_the_claim_was_sent(driver: Driver) -> None:
    await driver.jobs.insert([envelope()])
    before = clock.now()
    claim = await claim_one(driver, lease=30)
    assert before + 30 <= claim.deadline <= clock.now() + 30
