"""Settlements on their way into the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from outbox import clock
from outbox.drivers.base import Driver
from outbox.events import (
    ConnectionDown,
    ConnectionUp,
    JobSettled,
    LeaseLost,
    SettlementPostponed,
    SettlementRefused,
    SettlementsAbandoned,
)
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.runtime import completer as module
from outbox.runtime.availability import RENEW, Availability, ReconnectBackoff
from outbox.runtime.completer import Completer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.store_client import StoreClient
from outbox.settings import WorkerOptions
from outbox.settlement import Fence, Outcome, Settlement
from outbox.wakeups.polling import Polling
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until


class Work(Job):
    async def handle(self) -> None: ...


class Bench:
    def __init__(self, lease: float = 30) -> None:
        self.store = Store()
        self.driver = MemoryDriver(self.store)
        self.recorder = Recorder()
        store = StoreClient(cast("Driver", self.driver), WorkerOptions(), Polling(), on_end=lambda attempt: None)
        self.in_flight = store.in_flight
        self.accepted: list[Attempt] = []
        self.availability = Availability("memory", self.recorder.events)
        self.completer = Completer(
            store, self.availability, self.recorder.events, lease=lease, on_accepted=self.accepted.extend
        )

    async def claim(self, count: int) -> list[Attempt]:
        self.store.put(*(Work() for _ in range(count)))
        claims = await self.driver.claim(["default"], count, 30)
        attempts = [Attempt(claim, "memory", lambda attempt: None) for claim in claims]
        self.in_flight.add(attempts)
        return attempts

    def complete(self, *attempts: Attempt) -> None:
        for attempt in attempts:
            attempt.end(Settlement.completed(attempt.fence))
            self.completer.submit(attempt)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.completer.start()
    yield bench
    bench.driver.settling = True
    bench.store.unreachable = False
    await bench.completer.stop()


async def test_one_settlement_is_written_at_once(bench: Bench) -> None:
    bench.complete(*await bench.claim(1))
    await bench.recorder.wait(JobSettled)
    assert bench.store.batches == [1]
    assert len(bench.in_flight) == 0
    assert len(bench.accepted) == 1


async def test_while_one_batch_is_being_written_the_next_gathers(bench: Bench) -> None:
    attempts = await bench.claim(10)
    bench.driver.settling = False
    bench.complete(attempts[0])
    await until(lambda: "settle begins" in bench.store.calls)
    bench.complete(*attempts[1:])
    assert len(bench.in_flight) == 10, "leases are renewed until the ends are written"
    bench.driver.settling = True
    await bench.recorder.wait(JobSettled, 10)
    assert bench.store.batches == [1, 9]
    assert [each.fence for each in bench.store.settled] == [attempt.fence for attempt in attempts]


async def test_a_stale_settlement_is_told_as_a_lost_lease(bench: Bench) -> None:
    mine, stolen = await bench.claim(2)
    bench.store.steal(stolen.fence.job_id)
    bench.complete(mine, stolen)
    (lost,) = await bench.recorder.wait(LeaseLost)
    assert isinstance(lost, LeaseLost)
    assert lost.job_id == stolen.fence.job_id
    assert bench.accepted == [mine]


async def test_a_job_handed_back_after_an_outage_is_not_lost_twice(bench: Bench) -> None:
    (attempt,) = await bench.claim(1)
    bench.store.steal(attempt.fence.job_id)
    attempt.interrupt(Interruption.UNREACHABLE)
    attempt.end(Settlement.snoozed(attempt.fence))
    bench.completer.submit(attempt)
    await until(lambda: len(bench.in_flight) == 0)
    assert bench.recorder.of(LeaseLost) == []


@pytest.mark.parametrize("reason", [Interruption.UNREACHABLE, Interruption.NOT_BEGUN])
async def test_claiming_waits_for_what_is_handed_back_late(bench: Bench, reason: Interruption) -> None:
    (attempt,) = await bench.claim(1)
    bench.driver.settling = False
    attempt.interrupt(reason)
    attempt.end(Settlement.snoozed(attempt.fence))
    bench.completer.submit(attempt)
    await until(lambda: "settle begins" in bench.store.calls)
    assert not bench.completer.is_caught_up, "its lease may have ended: to claim it would count one more attempt"
    bench.driver.settling = True
    await bench.completer.caught_up()
    assert len(bench.in_flight) == 0


async def test_nothing_is_dropped_while_the_store_is_away(bench: Bench) -> None:
    attempts = await bench.claim(5)
    bench.store.unreachable = True
    bench.complete(*attempts)
    await until(lambda: bench.store.calls.count("settle") >= 3)
    caught_up = asyncio.create_task(bench.completer.caught_up())
    await asyncio.sleep(0)
    assert not caught_up.done(), "claiming now could claim again what has ended here"
    bench.store.unreachable = False
    await bench.recorder.wait(JobSettled, 5)
    await caught_up
    assert len(bench.recorder.of(ConnectionDown)) == len(bench.recorder.of(ConnectionUp)) == 1


async def test_a_settlement_that_the_store_refuses_does_not_take_others_with_it(bench: Bench) -> None:
    attempts = await bench.claim(20)
    poison = {attempts[3].fence, attempts[17].fence}
    bench.store.poison = lambda settlement: settlement.fence in poison
    bench.complete(*attempts)
    refused = await bench.recorder.wait(SettlementRefused, 2)
    await bench.recorder.wait(JobSettled, 18)
    assert {event.job_id for event in refused if isinstance(event, SettlementRefused)} == {f.job_id for f in poison}
    first = refused[0]
    assert isinstance(first, SettlementRefused)
    assert (first.outcome, first.failure.message) == (Outcome.COMPLETED, "this row is not for me")
    assert len(bench.in_flight) == 0, "the leases of the refused ones are left to end"
    bench.complete(*await bench.claim(1))
    await bench.recorder.wait(JobSettled, 19)


async def answering(bench: Bench) -> None:
    """The store carries out other requests."""
    while True:
        bench.availability.succeeded(clock.now(), RENEW)
        await asyncio.sleep(0.01)


async def test_an_end_that_is_refused_for_now_is_set_aside_and_written_later(bench: Bench) -> None:
    """The others of its batch, and all that come after it, are written meanwhile."""
    bench.completer.postponed.backoff = ReconnectBackoff(0.05, 0.05)
    attempts = await bench.claim(20)
    refused = {attempts[3].fence, attempts[17].fence}
    bench.store.refuses_now = lambda settlement: settlement.fence in refused
    others = asyncio.create_task(answering(bench))
    bench.complete(*attempts)
    postponed = await bench.recorder.wait(SettlementPostponed, 2)
    await bench.recorder.wait(JobSettled, 18)
    bench.complete(*await bench.claim(5))
    await bench.recorder.wait(JobSettled, 23)
    assert set(bench.in_flight.renewable()) == refused, "their leases are renewed"
    assert {event.job_id for event in postponed if isinstance(event, SettlementPostponed)} == {
        f.job_id for f in refused
    }
    tries = bench.store.calls.count("settle")
    await until(lambda: bench.store.calls.count("settle") >= tries + 4)
    assert len(bench.recorder.of(SettlementPostponed)) == 2, "each is told once"
    assert len(bench.recorder.of(ConnectionDown)) == len(bench.recorder.of(ConnectionUp)) == 1
    refused.clear()
    await bench.recorder.wait(JobSettled, 25)
    assert len(bench.in_flight) == 0
    assert bench.recorder.of(SettlementRefused) == []
    others.cancel()


async def test_each_end_of_a_batch_is_tried_alone_in_turn(bench: Bench) -> None:
    """The first try shows which one keeps the others, or the second does."""
    bench.completer.postponed.backoff = ReconnectBackoff(0.05, 0.05)
    asked: list[Fence] = []
    at_fault: Fence | None = None

    def refuses(settlement: Settlement) -> bool:
        asked.append(settlement.fence)
        return settlement.fence == at_fault

    bench.store.refuses_now = refuses
    for _ in range(8):
        attempts = await bench.claim(2)
        at_fault, settled = attempts[0].fence, len(bench.recorder.of(JobSettled))
        asked.clear()
        others = asyncio.create_task(answering(bench))
        bench.complete(*attempts)
        await bench.recorder.wait(JobSettled, settled + 1)
        # Twice together, of which the first one is asked for; then each alone, with both together in between.
        assert asked.index(attempts[1].fence) <= 4
        at_fault = None
        await bench.recorder.wait(JobSettled, settled + 2)
        others.cancel()


async def test_claiming_goes_on_when_one_that_it_waited_for_was_written_alone(bench: Bench) -> None:
    bench.completer.postponed.backoff = ReconnectBackoff(0.05, 0.05)
    attempts = await bench.claim(2)
    refused = {attempts[1].fence}
    bench.store.refuses_now = lambda settlement: settlement.fence in refused
    others = asyncio.create_task(answering(bench))
    for attempt in attempts:
        attempt.interrupt(Interruption.UNREACHABLE)
        attempt.end(Settlement.snoozed(attempt.fence))
        bench.completer.submit(attempt)
    await bench.recorder.wait(JobSettled)
    await bench.recorder.wait(SettlementPostponed)
    async with asyncio.timeout(30):
        await bench.completer.caught_up()
    refused.clear()
    await bench.recorder.wait(JobSettled, 2)
    others.cancel()


async def test_a_store_that_refuses_every_end_for_now_is_asked_again_until_it_takes_them(bench: Bench) -> None:
    attempts = await bench.claim(20)
    refuses = True
    bench.store.refuses_now = lambda settlement: refuses
    others = asyncio.create_task(answering(bench))
    bench.complete(*attempts)
    await until(lambda: bench.store.calls.count("settle") >= 4)
    assert (len(bench.in_flight), bench.recorder.of(SettlementPostponed)) == (20, [])
    refuses = False
    await bench.recorder.wait(JobSettled, 20)
    assert len(bench.recorder.of(ConnectionDown)) == len(bench.recorder.of(ConnectionUp)) == 1
    others.cancel()


async def test_stopping_gives_up_what_was_set_aside_after_one_lease() -> None:
    bench = Bench(lease=0.3)
    await bench.completer.start()
    attempts = await bench.claim(3)
    bench.store.refuses_now = lambda settlement: settlement.fence == attempts[1].fence
    others = asyncio.create_task(answering(bench))
    bench.complete(*attempts)
    await bench.recorder.wait(SettlementPostponed)
    await bench.recorder.wait(JobSettled, 2)
    await bench.completer.stop()
    (abandoned,) = bench.recorder.of(SettlementsAbandoned)
    assert isinstance(abandoned, SettlementsAbandoned)
    assert abandoned.job_ids == (attempts[1].fence.job_id,)
    others.cancel()


async def test_stopping_writes_everything_that_has_ended() -> None:
    bench = Bench()
    await bench.completer.start()
    bench.driver.settling = False
    bench.complete(*await bench.claim(3))
    stopping = asyncio.create_task(bench.completer.stop())
    await asyncio.sleep(0.01)
    bench.complete(*await bench.claim(3))
    bench.driver.settling = True
    await stopping
    assert len(bench.accepted) == 6


async def test_stopping_while_the_store_is_away_ends_after_one_lease() -> None:
    bench = Bench(lease=0.3)
    await bench.completer.start()
    attempts = await bench.claim(3)
    bench.store.unreachable = True
    bench.complete(*attempts[:2])
    await until(lambda: "settle" in bench.store.calls)
    bench.complete(attempts[2])
    await bench.completer.stop()
    (abandoned,) = bench.recorder.of(SettlementsAbandoned)
    assert isinstance(abandoned, SettlementsAbandoned)
    assert set(abandoned.job_ids) == {attempt.fence.job_id for attempt in attempts}
    assert len(bench.in_flight) == 0


async def test_a_store_that_comes_back_while_stopping_gets_everything() -> None:
    bench = Bench(lease=30)
    await bench.completer.start()
    bench.complete_later = await bench.claim(2)  # type: ignore[attr-defined]
    bench.store.unreachable = True
    bench.complete(*bench.complete_later)  # type: ignore[attr-defined]
    await until(lambda: "settle" in bench.store.calls)
    stopping = asyncio.create_task(bench.completer.stop())
    await until(lambda: bench.store.calls.count("settle") >= 3)
    bench.store.unreachable = False
    await stopping
    assert len(bench.accepted) == 2


async def test_claiming_waits_for_a_store_that_is_slower_than_the_jobs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BACKLOG", 3)
    attempts = await bench.claim(5)
    bench.driver.settling = False
    bench.complete(attempts[0])
    await until(lambda: "settle begins" in bench.store.calls)
    bench.complete(*attempts[1:])
    caught_up = asyncio.create_task(bench.completer.caught_up())
    await asyncio.sleep(0)
    assert not caught_up.done()
    bench.driver.settling = True
    await caught_up


async def test_stop_is_safe_in_any_state() -> None:
    bench = Bench()
    await bench.completer.stop()
    await bench.completer.stop()
    await bench.completer.start()
    bench = Bench()
    await bench.completer.start()
    await bench.completer.start()
    await bench.completer.stop()
    await bench.completer.stop()
