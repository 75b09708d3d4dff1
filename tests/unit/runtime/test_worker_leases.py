"""A worker keeps its leases while its loop is blocked, and heeds those that it has lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from outbox.drivers.values import Claim, Lease
from outbox.events import (
    ConnectionDown,
    ConnectionUp,
    JobCancelled,
    JobSettled,
    JobStarted,
    LeaseLost,
)
from outbox.job import Job
from outbox.settlement import Fence, Outcome
from tests.unit.runtime.memory import MemoryDriver
from tests.unit.runtime.running import Gated, Quick, Running


async def test_a_job_that_blocks_the_loop_keeps_its_lease() -> None:
    class Blocks(Job):
        timeout = 0

        async def handle(self) -> None:
            time.sleep(2.5)

    running = Running(lease=1, stop_when_empty=True)
    running.store.put(Blocks())
    await running.ended()
    (settled,) = running.recorder.of(JobSettled)
    assert isinstance(settled, JobSettled)
    assert (settled.outcome, settled.attempt) == (Outcome.COMPLETED, 1)
    assert running.recorder.of(LeaseLost) == []


async def test_jobs_claimed_while_the_loop_is_blocked_keep_their_leases_until_they_begin() -> None:
    """The claim comes back in another thread, and its leases are renewed there, before the loop can hear of it."""
    blocked = threading.Event()

    class BlocksOnce(Job):
        timeout = 0

        async def handle(self) -> None:
            running.drivers[0].claiming = False
            running.store.put(*(Quick() for _ in range(5)))
            await asyncio.sleep(0.2)  # the claimer's next claim is under way by now
            running.drivers[0].claiming = True
            blocked.set()
            time.sleep(2.5)

    running = Running(lease=1, concurrency=10, stop_when_empty=True)
    running.store.put(BlocksOnce())
    await running.ended()
    assert blocked.is_set()
    settled = [event for event in running.recorder.of(JobSettled) if isinstance(event, JobSettled)]
    assert [(event.outcome, event.attempt) for event in settled] == [(Outcome.COMPLETED, 1)] * 6
    assert running.recorder.of(LeaseLost) == []


async def test_a_job_that_somebody_else_owns_is_cancelled_and_changes_nothing() -> None:
    running = Running(lease=1)
    (job_id,) = running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)
    running.store.steal(job_id)
    (lost,) = await running.recorder.wait(LeaseLost)
    assert isinstance(lost, LeaseLost)
    assert lost.job_id == job_id
    assert Gated.running == 0
    await running.stopped()
    assert running.store.settled == []


async def test_a_job_that_an_operator_removed_is_cancelled_and_not_told_as_a_lost_lease() -> None:
    running = Running(lease=1)
    (job_id,) = running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)
    del running.store.rows[job_id]
    (cancelled,) = await running.recorder.wait(JobCancelled)
    assert isinstance(cancelled, JobCancelled)
    assert cancelled.job_id == job_id
    assert Gated.running == 0
    await running.stopped()
    assert running.recorder.of(LeaseLost) == running.store.settled == []


async def test_a_job_that_ended_after_an_operator_removed_it_is_told_as_cancelled() -> None:
    running = Running(lease=60)
    (job_id,) = running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)
    del running.store.rows[job_id]
    Gated.gate.set()
    await running.recorder.wait(JobCancelled)
    await running.stopped()
    assert running.recorder.of(LeaseLost) == running.recorder.of(JobSettled) == []


async def test_an_outage_longer_than_the_lease_costs_no_attempt_and_is_told_once() -> None:
    running = Running(lease=1)
    running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)
    running.store.unreachable = True
    await running.recorder.wait(LeaseLost)
    assert Gated.running == 0, "the handler stops before its lease ends"
    await asyncio.sleep(1)
    running.store.unreachable = False
    await running.recorder.wait(JobStarted, 2)
    again = running.recorder.of(JobStarted)[1]
    assert isinstance(again, JobStarted)
    assert again.attempt == 1
    await running.recorder.wait(ConnectionUp)
    Gated.gate.set()
    await running.recorder.wait(JobSettled, 2)
    await running.stopped()
    assert len(running.recorder.of(ConnectionDown)) == len(running.recorder.of(ConnectionUp)) == 1


async def test_a_worker_that_was_frozen_past_its_lease_does_not_hand_the_job_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were it to, a job that freezes its machine would never be counted, and never end."""
    running = Running(lease=1)
    running.store.put(Gated())

    async def hangs(self: MemoryDriver, fences: object, lease: float) -> Lease:
        time.sleep(3)  # the whole thread stands still
        await asyncio.sleep(0.1)
        return Lease(0, frozenset(), frozenset())

    monkeypatch.setattr(MemoryDriver, "extend", hangs)
    running.start()
    await running.recorder.wait(LeaseLost)
    assert running.store.settled == []
    (row,) = running.store.rows.values()
    assert row.attempts >= 1, "it counts, whoever has claimed the job since"
    await running.stopped()


async def test_a_worker_that_was_frozen_while_it_claimed_hands_the_job_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that has not begun cannot have frozen the machine."""
    running = Running(lease=1)
    running.store.put(Gated())
    loop, freezes = asyncio.get_running_loop(), [True]
    claim, extend = MemoryDriver.claim, MemoryDriver.extend

    async def freezes_once(self: MemoryDriver, *arguments: Any, **options: Any) -> list[Claim]:
        claims = await claim(self, *arguments, **options)
        if claims and freezes:
            freezes.clear()
            time.sleep(1.2)  # the whole thread stands still
            loop.call_soon_threadsafe(time.sleep, 0.3)  # the lease is found to have ended before the job can begin
        return claims

    async def comes_too_late(self: MemoryDriver, fences: Sequence[Fence], lease: float) -> Lease:
        while not self.store.settled:
            await asyncio.sleep(0.002)
        return await extend(self, fences, lease)

    monkeypatch.setattr(MemoryDriver, "claim", freezes_once)
    monkeypatch.setattr(MemoryDriver, "extend", comes_too_late)
    running.start()
    await running.recorder.wait(LeaseLost)
    (started,) = await running.recorder.wait(JobStarted)
    assert isinstance(started, JobStarted)
    assert started.attempt == 1
    assert [each.outcome for each in running.store.settled] == [Outcome.SNOOZED]
    Gated.gate.set()
    await running.stopped()
