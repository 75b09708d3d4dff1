"""Renewal, and what happens when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from outbox import clock
from outbox.events import ConnectionDown, ConnectionUp
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.runtime.availability import Availability
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.leases.expiry import Expiry
from outbox.runtime.leases.in_flight import InFlight
from outbox.runtime.leases.renewal import Renewal
from outbox.settlement import Fence, Settlement
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until


class Work(Job):
    async def handle(self) -> None: ...


async def none_removed(_: Sequence[Attempt]) -> frozenset[Attempt]:
    return frozenset()


class Bench:
    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.store = Store()
        self.driver = MemoryDriver(self.store)
        self.recorder = Recorder()
        self.in_flight = InFlight()
        self.lost: list[Fence] = []
        self.expiring: list[Fence] = []
        availability = Availability("memory", self.recorder.events)
        self.renewal = Renewal(
            self.driver,
            self.in_flight,
            availability,
            lease=lease,
            on_lost=lambda attempt: self.lost.append(attempt.fence),
            on_cancelled=lambda attempt: None,
            removed=none_removed,
        )
        self.expiry = Expiry(
            self.in_flight, lease=lease, on_expiring=lambda attempt, frozen: self.expiring.append(attempt.fence)
        )

    async def claim(self, count: int = 1, *, short_jobs: bool = False) -> list[Attempt]:
        self.store.put(*(Work() for _ in range(count)))
        claims = await self.driver.claim(["default"], count, self.lease)
        attempts = [Attempt(claim, "memory", lambda attempt: None) for claim in claims]
        self.in_flight.add(attempts, short_jobs=short_jobs)
        return attempts

    def calls(self, verb: str) -> Callable[[int], bool]:
        return lambda count: self.store.calls.count(verb) >= count


async def test_all_leases_are_renewed_in_one_call_each_third_of_a_lease() -> None:
    bench = Bench(lease=0.3)
    attempts = await bench.claim(50)
    first = attempts[0].deadline
    began = clock.now()
    await bench.renewal.start()
    await until(lambda: bench.store.calls.count("extend") == 3)
    await bench.renewal.stop()
    assert clock.now() - began >= 0.29
    assert bench.lost == []
    assert all(attempt.deadline > first + 0.1 for attempt in attempts)
    assert [row.reserved_until for row in bench.store.rows.values()] == [attempt.deadline for attempt in attempts]


async def test_what_was_to_be_brief_is_renewed_once_after_a_second_and_then_like_the_others() -> None:
    bench = Bench(lease=60)
    overstaying, ended, stolen = await bench.claim(3, short_jobs=True)
    [long] = await bench.claim()
    bench.in_flight.discard([ended])
    stolen.interrupt(Interruption.LEASE_LOST)
    began = clock.now()
    await bench.renewal.start()
    await until(lambda: bench.store.calls.count("extend") == 1)
    assert clock.now() - began >= 0.9
    await until(lambda: overstaying.deadline > overstaying.claim.deadline)
    await bench.renewal.pause(2.5)
    await bench.renewal.stop()
    assert bench.store.calls.count("extend") == 1
    assert (long.deadline, stolen.deadline) == (long.claim.deadline, stolen.claim.deadline)


async def test_they_are_counted_by_how_long_they_are_held() -> None:
    bench = Bench(lease=60)
    first = await bench.claim(2)
    between = clock.now()
    await asyncio.sleep(0.001)
    await bench.claim(3)
    assert bench.in_flight.held_since(first[0].deadline - 61) == 0
    assert bench.in_flight.held_since(between) == 2
    assert bench.in_flight.held_since(clock.now()) == 5
    bench.in_flight.discard(first)
    assert bench.in_flight.held_since(between) == 0


async def test_nothing_held_costs_no_call() -> None:
    bench = Bench(lease=0.03)
    await bench.renewal.start()
    await bench.renewal.pause(0.1)
    await bench.renewal.stop()
    assert bench.store.calls == []


async def test_a_lost_lease_is_told_and_a_stolen_job_is_not_extended() -> None:
    bench = Bench(lease=0.15)
    kept, stolen = await bench.claim(2)
    bench.store.steal(stolen.fence.job_id)
    until_then = bench.store.rows[stolen.fence.job_id].reserved_until
    await bench.renewal.start()
    await until(lambda: bool(bench.lost))
    await bench.renewal.stop()
    assert set(bench.lost) == {stolen.fence}
    assert bench.store.rows[stolen.fence.job_id].reserved_until == until_then
    assert kept.deadline > stolen.deadline


async def test_a_job_whose_lease_is_lost_is_not_kept_from_its_next_owner() -> None:
    bench = Bench(lease=30)
    attempts = await bench.claim(2)
    attempts[0].interrupt(Interruption.LEASE_LOST)
    assert bench.in_flight.renewable() == [attempts[1].fence]


async def test_an_ended_attempt_is_renewed_until_it_is_written() -> None:
    bench = Bench(lease=30)
    (attempt,) = await bench.claim()
    attempt.end(Settlement.completed(attempt.fence))
    assert bench.in_flight.renewable() == [attempt.fence]
    assert bench.in_flight.expiring(float("inf")) == [], "there is no handler left to stop"


async def test_failures_are_tried_again_well_before_the_lease_ends() -> None:
    bench = Bench(lease=1.2)
    await bench.claim()
    bench.store.unreachable = True
    await bench.renewal.start()
    await until(lambda: bench.store.calls.count("extend") >= 4)
    bench.store.unreachable = False
    await bench.recorder.wait(ConnectionUp)
    await bench.renewal.stop()
    assert len(bench.recorder.of(ConnectionDown)) == 1


async def test_an_unexpected_error_does_not_end_renewal(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(lease=0.1)
    await bench.claim()
    original, failing = bench.driver.extend, [True]

    async def extend(*arguments: object) -> object:
        if failing.pop() if failing else False:
            raise ZeroDivisionError
        return await original(*arguments)  # type: ignore[arg-type]

    bench.driver.extend = extend  # type: ignore[method-assign, assignment]
    await bench.renewal.start()
    await until(lambda: bench.store.calls.count("extend") >= 1)
    await bench.renewal.stop()
    assert "trying again" in caplog.text


async def test_a_handler_is_told_of_the_end_of_its_lease_even_while_a_renewal_hangs() -> None:
    """Before that end: see the table of looks."""
    bench = Bench(lease=0.6)
    (attempt,) = await bench.claim()
    await bench.expiry.start()
    await until(lambda: bool(bench.expiring))
    assert clock.now() >= attempt.deadline - 0.1 - 0.05
    await bench.expiry.stop()


async def test_a_renewed_lease_is_not_expiring() -> None:
    bench = Bench(lease=3)
    await bench.claim()
    await bench.renewal.start()
    await bench.expiry.start()
    await until(lambda: bench.store.calls.count("extend") >= 3)
    await bench.expiry.stop()
    await bench.renewal.stop()
    assert bench.expiring == []


class TimedLooks(Expiry):
    """Looks when the test says so, by a clock of its own."""

    def __init__(self, attempts: Sequence[Attempt], *, lease: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[float, bool]] = []
        self.now = clock.now()
        self.gaps: list[float] = []
        self.before: dict[int, Callable[[], None]] = {}
        """What happens before which gap."""
        self.looks = 0
        self.begun = self.now
        held = InFlight()
        held.add(attempts)
        super().__init__(held, lease=lease, on_expiring=self._expiring)
        monkeypatch.setattr(clock, "now", lambda: self.now)

    def _expiring(self, _: Attempt, frozen: bool) -> None:
        self.told.append((round(self.now - self.begun, 3), frozen))

    async def pause(self, seconds: float) -> bool:
        if self.looks == len(self.gaps):
            return True
        self.before.get(self.looks, lambda: None)()
        self.now += self.gaps[self.looks]
        self.looks += 1
        return False


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        # A handler is told before its lease of six seconds ends.
        ([0.5] * 10, [(5.0, False)]),
        # The store has not renewed the lease for long when the process is late.
        ([0.5] * 9 + [1.1], [(5.6, False)]),
        ([0.5] * 6 + [1.1, 1.1], [(5.2, False)]),
        # The process was frozen before the store could be blamed, or all the time.
        ([0.5] * 5 + [2.6], [(5.1, True)]),
        ([2.0] * 3, [(6.0, True)]),
        ([7.0], [(7.0, True)]),
    ],
)
async def test_a_store_that_did_not_renew_is_told_from_a_process_that_was_late(
    gaps: list[float], told: list[tuple[float, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = TimedLooks(await Bench(lease=6).claim(), lease=6, monkeypatch=monkeypatch)
    looks.gaps = gaps
    await looks.run()
    assert looks.told == told


async def test_a_store_that_renewed_in_the_end_is_not_blamed_for_a_freeze_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (attempt,) = await Bench(lease=6).claim()
    looks = TimedLooks([attempt], lease=6, monkeypatch=monkeypatch)

    def renew() -> None:
        attempt.deadline = looks.now + 6

    looks.gaps = [0.5] * 8 + [6.5]
    looks.before = {8: renew}
    await looks.run()
    assert looks.told == [(10.5, True)]
