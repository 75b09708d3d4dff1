"""When and how much is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.values import Claim
from outbox.errors import BackendUnavailable
from outbox.events import ConnectionDown, ConnectionUp
from outbox.job import Job
from outbox.options import JobOptions
from outbox.runtime.availability import Availability
from outbox.runtime.claimer import Claimer
from outbox.runtime.completer import Completer
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.slots import Slots
from outbox.runtime.store_client import StoreClient
from outbox.settings import WorkerOptions
from outbox.settlement import Settlement
from outbox.wakeups.polling import Polling
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until


class Work(Job):
    async def handle(self) -> None: ...


class Bench:
    """A claimer whose jobs end when the test says so."""

    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.driver = MemoryDriver(self.store)
        self.recorder = Recorder()
        self.options = WorkerOptions(**{"concurrency": 8, "sleep": 60, **options})
        self.slots = Slots(self.options.concurrency)
        self.wakeups = Polling()
        self.begun: list[Attempt] = []
        self.handed_back: list[Attempt] = []
        self.checks = 0
        self.check_errors: list[Exception] = []
        self.empty = 0
        self.order: list[str] = []
        availability = Availability("memory", self.recorder.events)
        store = CheckedStore(self)
        self.completer = Completer(
            store, availability, self.recorder.events, lease=30, on_accepted=lambda attempts: None
        )
        self.claimer = Claimer(
            self.options,
            store,
            slots=self.slots,
            consumers=1,
            completer=self.completer,
            availability=availability,
            begin=self._begin,
            hand_back=self.handed_back.extend,
            on_empty=self._on_empty,
        )

    def _begin(self, attempts: Sequence[Attempt]) -> None:
        self.begun.extend(attempts)
        for _ in attempts:
            asyncio.get_running_loop().call_soon(self.order.append, "a first step")

    async def aside(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self.order.append("aside")
        return await function(*arguments)

    async def check(self) -> None:
        self.checks += 1
        if self.check_errors:
            raise self.check_errors.pop()

    async def _on_empty(self) -> None:
        self.empty += 1

    def put(self, count: int, **options: Any) -> None:
        self.store.put(*(Work() for _ in range(count)), options=JobOptions(**options))

    async def calls(self, verb: str, count: int) -> None:
        await until(lambda: self.store.calls.count(verb) >= count)

    async def end_unwritten(self, attempt: Attempt) -> None:
        """End it while the store does not answer, until the claimer waits for that."""
        await self.completer.start()
        attempt.end(Settlement.completed(attempt.fence))
        self.completer.submit(attempt)
        self.slots.release()
        await until(lambda: not self.completer.is_caught_up)
        self.wakeups.wake()
        await self.settled_down()

    async def settled_down(self) -> None:
        """Until the claimer sleeps or waits for room. Of two looks, the first may come with its own pauses, after a
        moment in which this process stood still."""
        unchanged, before = 0, -1
        while unchanged < 2:
            unchanged, before = unchanged + 1 if before == len(self.store.calls) else 0, len(self.store.calls)
            await asyncio.sleep(0.05)


class CheckedStore(StoreClient):
    """Its checks go as the test says, and its calls are noted."""

    def __init__(self, bench: Bench) -> None:
        driver = cast("Driver", bench.driver)
        super().__init__(driver, bench.options, bench.wakeups, on_end=lambda attempt: None, run=bench.aside)
        self._bench = bench

    async def check(self) -> None:
        await self._bench.check()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.driver.claiming = True
    await bench.claimer.stop()


async def test_it_claims_as_much_as_there_is_room_for(bench: Bench) -> None:
    bench.put(20)
    await bench.claimer.start()
    await bench.settled_down()
    assert bench.store.claim_limits == [8]
    assert len(bench.begun) == bench.slots.running == 8


async def test_after_a_full_claim_it_waits_for_a_quarter_of_the_slots(bench: Bench) -> None:
    bench.put(20)
    await bench.claimer.start()
    await bench.settled_down()
    bench.slots.release()
    bench.slots.release()
    await bench.calls("claim", 2)
    assert bench.store.claim_limits == [8, 2]


async def test_after_a_full_claim_a_single_free_slot_is_soon_used(bench: Bench) -> None:
    bench.put(20)
    await bench.claimer.start()
    await bench.settled_down()
    bench.slots.release()
    await bench.calls("claim", 2)
    assert bench.store.claim_limits == [8, 1]


async def test_an_idle_claimer_only_looks() -> None:
    bench = Bench(sleep=0.05)
    await bench.claimer.start()
    await bench.calls("look", 5)
    await bench.claimer.stop()
    assert bench.store.calls.count("claim") == bench.empty == 1


async def test_a_full_claim_is_followed_by_no_look(bench: Bench) -> None:
    bench.put(8)
    await bench.claimer.start()
    await bench.calls("claim", 1)
    await bench.settled_down()
    assert "look" not in bench.store.calls


async def test_it_wakes_when_the_next_delayed_job_becomes_due(bench: Bench) -> None:
    bench.put(1, delay=0.1)
    await bench.claimer.start()
    await until(lambda: len(bench.begun) == 1)
    assert bench.store.calls.count("claim") <= 3


async def test_a_wakeup_ends_the_nap(bench: Bench) -> None:
    await bench.claimer.start()
    await bench.settled_down()
    bench.put(1)
    await asyncio.to_thread(bench.wakeups.wake)
    await until(lambda: len(bench.begun) == 1)


async def test_what_was_found_takes_its_first_step_before_the_claimer_sleeps(bench: Bench) -> None:
    bench.put(2)
    await bench.claimer.start()
    await bench.settled_down()
    assert bench.order == ["aside", "a first step", "a first step", "aside"]


async def test_a_wakeup_during_a_claim_is_not_lost(bench: Bench) -> None:
    bench.put(1)
    bench.driver.claiming = False
    await bench.claimer.start()
    await asyncio.sleep(0.01)
    bench.wakeups.wake()
    bench.driver.claiming = True
    await bench.calls("claim", 2)


async def test_an_outage_is_told_once_and_survived(bench: Bench) -> None:
    bench.store.unreachable = True
    await bench.claimer.start()
    await bench.calls("claim", 4)
    assert bench.slots.free == 8, "the slots belong to other lanes meanwhile"
    bench.put(1)
    bench.store.unreachable = False
    await until(lambda: len(bench.begun) == 1)
    assert [type(event) for event in bench.recorder.seen] == [ConnectionDown, ConnectionUp]


async def test_a_store_that_refuses_looks_and_not_claims_is_one_outage() -> None:
    """A proxy sends looks to replicas, and claims to the primary."""
    bench = Bench(sleep=0.02)
    bench.store.refuses_looks = True
    await bench.claimer.start()
    await bench.calls("claim", 4)
    bench.put(1)
    await until(lambda: len(bench.begun) == 1)
    await bench.calls("look", bench.store.calls.count("look") + 2)
    assert [type(event) for event in bench.recorder.seen] == [ConnectionDown]
    bench.store.refuses_looks = False
    await until(lambda: len(bench.recorder.seen) == 2)
    assert [type(event) for event in bench.recorder.seen] == [ConnectionDown, ConnectionUp]
    await bench.claimer.stop()


async def test_it_looks_for_the_store_until_it_is_there(bench: Bench) -> None:
    bench.check_errors = [BackendUnavailable("starting"), BackendUnavailable("starting")]
    await bench.claimer.start()
    await bench.calls("claim", 1)
    assert bench.checks == 3
    assert [type(event) for event in bench.recorder.seen] == [ConnectionDown, ConnectionUp]


async def test_what_is_claimed_while_stopping_is_handed_back(bench: Bench) -> None:
    bench.put(3)
    bench.driver.claiming = False
    await bench.claimer.start()
    await asyncio.sleep(0.01)
    stopping = asyncio.create_task(bench.claimer.stop())
    await asyncio.sleep(0.01)
    bench.driver.claiming = True
    await stopping
    assert len(bench.handed_back) == 3
    assert bench.begun == []
    assert bench.slots.free == 8


async def test_stopping_ends_every_kind_of_wait() -> None:
    napping = Bench()
    await napping.claimer.start()
    await napping.settled_down()
    await napping.claimer.stop()

    waiting_for_room = Bench()
    waiting_for_room.put(8)
    await waiting_for_room.claimer.start()
    await until(lambda: len(waiting_for_room.begun) == 8)
    await waiting_for_room.claimer.stop()

    waiting_for_the_store = Bench()
    waiting_for_the_store.store.unreachable = True
    await waiting_for_the_store.claimer.start()
    await waiting_for_the_store.calls("claim", 3)
    await waiting_for_the_store.claimer.stop()

    waiting_for_the_end_of_a_job = Bench()
    waiting_for_the_end_of_a_job.put(1)
    await waiting_for_the_end_of_a_job.claimer.start()
    await until(lambda: len(waiting_for_the_end_of_a_job.begun) == 1)
    waiting_for_the_end_of_a_job.store.unreachable = True
    await waiting_for_the_end_of_a_job.end_unwritten(waiting_for_the_end_of_a_job.begun[0])
    async with asyncio.timeout(20):
        await waiting_for_the_end_of_a_job.claimer.stop()
    waiting_for_the_end_of_a_job.store.unreachable = False
    await waiting_for_the_end_of_a_job.completer.stop()

    never_started = Bench()
    await never_started.claimer.stop()
    await never_started.claimer.start()
    assert never_started.store.calls == []


async def test_an_unexpected_error_is_reported(bench: Bench) -> None:
    async def claim(queues: Sequence[str], limit: int, lease: float, *, short_jobs: bool = False) -> list[Claim]:
        raise ZeroDivisionError

    crashes: list[BaseException] = []
    bench.driver.claim = claim  # type: ignore[method-assign]
    bench.claimer.on_crash = crashes.append
    await bench.claimer.start()
    await until(lambda: bool(crashes))
    assert isinstance(crashes[0], ZeroDivisionError)
    assert bench.slots.free == 8
