"""A whole worker in this process, on a store that can be held and broken at will."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from outbox.backoff import Backoff
from outbox.drivers.values import Claim, Lease
from outbox.errors import TablesMissing
from outbox.events import (
    ConnectionDown,
    ConnectionUp,
    JobCancelled,
    JobOverdue,
    JobSettled,
    JobStarted,
    LeaseLost,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from outbox.job import Job
from outbox.options import JobOptions
from outbox.runtime import store_client
from outbox.runtime import worker as module
from outbox.runtime.execution.executor import Executor
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.worker import Ended, Worker
from outbox.settings import WorkerOptions
from outbox.settlement import Fence, Outcome
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until


class Quick(Job):
    async def handle(self) -> None: ...


class Gated(Job):
    """Ends when the test opens the gate."""

    timeout = 0
    gate: ClassVar[asyncio.Event]
    running: ClassVar[int] = 0

    async def handle(self) -> None:
        Gated.running += 1
        try:
            await self.gate.wait()
        finally:
            Gated.running -= 1


class Flaky(Job):
    max_tries = 3
    backoff = Backoff(0.05)
    hooked: ClassVar[list[BaseException]] = []

    async def handle(self) -> None:
        raise ValueError(f"attempt {self.context.attempt}")

    async def failed(self, error: BaseException) -> None:
        self.hooked.append(error)


class Stuck(Job):
    timeout = 0.02
    max_tries = 1
    release: ClassVar[threading.Event]

    def handle(self) -> None:
        self.release.wait(20)  # a call into C, which nothing interrupts


@pytest.fixture(autouse=True)
def fresh() -> None:
    Gated.gate, Gated.running = asyncio.Event(), 0
    Stuck.release = threading.Event()
    Flaky.hooked.clear()


class Running:
    def __init__(self, *stores: Store, **options: Any) -> None:
        self.stores = stores or (Store(),)
        self.recorder = Recorder()
        options = {"sleep": 0.05, "grace": 60, "concurrency": 10, **options}
        self.drivers = [MemoryDriver(store, f"memory{index}") for index, store in enumerate(self.stores)]
        self.worker = Worker(
            WorkerOptions(**options),
            self.drivers,  # type: ignore[arg-type]
            self.recorder.events,
            name="test",
        )
        self.task: asyncio.Task[Ended] | None = None

    @property
    def store(self) -> Store:
        return self.stores[0]

    def start(self) -> None:
        self.task = asyncio.create_task(self.worker.run())

    async def ended(self) -> Ended:
        if self.task is None:
            self.start()
        assert self.task is not None
        return await asyncio.wait_for(self.task, 30)

    async def stopped(self) -> Ended:
        self.worker.stop.request(Reason.SIGNAL)
        return await self.ended()


async def test_it_drains_the_queue_and_stops_when_it_is_empty() -> None:
    running = Running(stop_when_empty=True, concurrency=3)
    running.store.put(*(Quick() for _ in range(25)))
    ended = await running.ended()
    assert (ended.reason, ended.stuck) == (Reason.EMPTY, 0)
    assert running.store.rows == {}
    assert len(running.recorder.of(JobSettled)) == 25
    assert running.recorder.of(WorkerStopped) == [WorkerStopped("test", 25, 0, 0)]
    assert running.store.workers == {}
    assert all(driver.closed for driver in running.drivers)


async def test_in_a_backlog_of_short_jobs_claims_say_that_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_client, "SHORT_SECONDS", 60)
    running = Running(stop_when_empty=True, concurrency=8)
    running.store.put(*(Quick() for _ in range(40)))
    await running.ended()
    short_jobs = running.store.claims_were_brief
    assert short_jobs[:2] == [False, True], "nothing was known of the first ones"


async def test_they_do_not_while_more_than_an_eighth_of_the_slots_is_taken_by_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_client, "SHORT_SECONDS", 0)
    running = Running(concurrency=8)
    running.store.put(*(Gated() for _ in range(2)), *(Quick() for _ in range(30)))
    running.start()
    await until(lambda: len(running.store.rows) == 2)
    Gated.gate.set()
    await running.stopped()
    assert len(running.store.claims_were_brief) > 3
    assert not any(running.store.claims_were_brief)


async def test_empty_means_nothing_delayed_either() -> None:
    running = Running(stop_when_empty=True)
    running.store.put(Quick(), options=JobOptions(delay=0.3))
    running.store.put(Quick(), options=JobOptions(queue="other"))
    await running.ended()
    assert [row.queue for row in running.store.rows.values()] == ["other"]


async def test_a_job_is_tried_again_and_then_fails_with_its_hook_called_once() -> None:
    running = Running(stop_when_empty=True, sleep=30)
    running.store.put(Flaky())
    await running.ended()
    outcomes = [event.outcome for event in running.recorder.of(JobSettled) if isinstance(event, JobSettled)]
    assert outcomes == [Outcome.RETRIED, Outcome.RETRIED, Outcome.FAILED]
    assert [str(error) for error in Flaky.hooked] == ["attempt 3"]
    assert running.recorder.of(WorkerStopped) == [WorkerStopped("test", 3, 1, 0)]


async def test_a_worker_remembers_what_it_has_put_back_where_looks_do_not_find_it() -> None:
    """While an open transaction makes looks at the head of the claim index expensive, they are seconds apart."""
    running = Running(sleep=0.01)
    running.store.looks_find = False
    running.store.put(Flaky())
    running.start()
    outcomes = [event.outcome for event in await running.recorder.wait(JobSettled, 3) if isinstance(event, JobSettled)]
    assert outcomes == [Outcome.RETRIED, Outcome.RETRIED, Outcome.FAILED]
    await running.stopped()


async def test_once_runs_one_job() -> None:
    running = Running(once=True)
    running.store.put(Quick(), Quick())
    assert (await running.ended()).reason is Reason.ONCE
    assert len(running.store.rows) == 1


async def test_once_looks_once() -> None:
    running = Running(once=True, sleep=30)
    running.store.put(Quick(), options=JobOptions(delay=20))
    assert (await running.ended()).reason is Reason.ONCE
    assert len(running.store.rows) == 1


async def test_max_jobs_is_exact() -> None:
    running = Running(max_jobs=7, concurrency=4)
    running.store.put(*(Quick() for _ in range(20)))
    assert (await running.ended()).reason is Reason.MAX_JOBS
    assert len(running.store.rows) == 13
    assert len(running.recorder.of(JobStarted)) == 7


async def test_a_worker_that_reached_its_limit_lets_jobs_finish_beyond_the_grace() -> None:
    running = Running(max_jobs=1, grace=0)
    running.store.put(Gated())
    running.start()
    await running.recorder.wait(WorkerStopping)
    await asyncio.sleep(0.05)
    assert Gated.running == 1
    Gated.gate.set()
    await running.ended()
    assert running.recorder.of(WorkerStopped) == [WorkerStopped("test", 1, 0, 0)]


async def test_max_time() -> None:
    running = Running(max_time=0.1)
    assert (await running.ended()).reason is Reason.MAX_TIME


async def test_it_lets_jobs_finish_within_the_grace() -> None:
    running = Running()
    running.store.put(Gated(), Gated())
    running.start()
    await running.recorder.wait(JobStarted, 2)
    running.worker.stop.request(Reason.SIGNAL)
    await running.recorder.wait(WorkerStopping)
    running.store.put(Quick())
    Gated.gate.set()
    ended = await running.ended()
    assert ended.reason is Reason.SIGNAL
    assert [row.name for row in running.store.rows.values()] == [Quick.name], "a stopping worker claims nothing"


async def test_what_does_not_finish_is_handed_back_without_costing_an_attempt() -> None:
    running = Running(grace=0.05)
    running.store.put(Gated(), Gated())
    running.start()
    await running.recorder.wait(JobStarted, 2)
    await running.stopped()
    assert [(row.attempts, row.token) for row in running.store.rows.values()] == [(0, None), (0, None)]
    assert running.recorder.of(WorkerStopped) == [WorkerStopped("test", 0, 0, 2)]
    assert Gated.running == 0


async def test_the_order_of_stopping_leases_last() -> None:
    """While the last ends are being written, leases are still renewed and the worker's row is still there."""
    running = Running(lease=1)
    running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)
    running.drivers[0].settling = False
    Gated.gate.set()
    running.worker.stop.request(Reason.SIGNAL)
    await until(lambda: "settle begins" in running.store.calls)
    del running.store.calls[:]
    await until(lambda: running.store.calls.count("extend") >= 2)
    assert len(running.store.workers) == 1
    running.drivers[0].settling = True
    await running.ended()
    assert running.store.workers == {}
    assert running.store.calls[-1] == "retire"
    assert running.store.rows == {}


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


async def test_a_wrong_store_stops_the_worker_before_it_starts() -> None:
    running = Running()
    running.drivers[0].check_error = TablesMissing("run `alembic upgrade head`")
    with pytest.raises(TablesMissing, match="alembic"):
        await running.ended()
    assert running.recorder.seen == []
    assert running.drivers[0].closed


async def test_a_store_that_is_away_at_the_start_is_waited_for() -> None:
    running = Running()
    running.store.unreachable = True
    running.store.put(Quick())
    running.start()
    await running.recorder.wait(WorkerStarted)
    await until(lambda: running.store.calls.count("check") >= 3)
    assert "beat" not in running.store.calls
    running.store.unreachable = False
    await running.recorder.wait(JobSettled)
    await running.stopped()
    assert len(running.recorder.of(ConnectionDown)) == len(running.recorder.of(ConnectionUp)) == 1


async def test_a_store_that_turns_out_wrong_later_is_a_matter_of_configuration() -> None:
    running = Running()
    running.store.unreachable = True
    running.drivers[0].check_error = TablesMissing("run `alembic upgrade head`")
    running.start()
    await running.recorder.wait(ConnectionDown)
    running.store.unreachable = False
    ended = await running.ended()
    assert ended.reason is Reason.CONFIGURATION
    assert isinstance(ended.error, TablesMissing)


async def test_one_store_that_is_away_does_not_keep_the_worker_from_the_others() -> None:
    away, here = Store(), Store()
    away.unreachable = True
    running = Running(away, here, concurrency=2)
    here.put(*(Quick() for _ in range(10)))
    running.start()
    await running.recorder.wait(JobSettled, 10)
    await running.stopped()
    assert here.rows == {}


async def test_one_store_that_hangs_does_not_keep_slots_from_the_others() -> None:
    hangs, here = Store(), Store()
    running = Running(hangs, here, concurrency=1)
    running.start()
    await until(lambda: "look" in hangs.calls)
    hangs.unreachable = True
    await running.recorder.wait(ConnectionDown)
    running.drivers[0].claiming = False
    looks = hangs.calls.count("look")
    try:
        await until(lambda: hangs.calls.count("look") >= looks + 2)
        here.put(*(Quick() for _ in range(10)))
        await running.recorder.wait(JobSettled, 10)
        hangs.unreachable, running.drivers[0].claiming = False, True
        hangs.put(Quick())
        await running.recorder.wait(JobSettled, 11)
    finally:
        running.drivers[0].claiming = True
        await running.stopped()


async def test_several_stores_get_their_turn() -> None:
    first, second = Store(), Store()
    running = Running(first, second, concurrency=2, stop_when_empty=True)
    first.put(*(Quick() for _ in range(50)))
    second.put(*(Quick() for _ in range(50)))
    await running.ended()
    connections = [event.connection for event in running.recorder.of(JobSettled) if isinstance(event, JobSettled)]
    assert set(connections[:20]) == {"memory0", "memory1"}
    assert len(connections) == 100


async def test_a_look_that_fails_for_no_known_reason_stops_the_worker_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = Running()
    running.store.put(Gated())
    running.start()
    await running.recorder.wait(JobStarted)

    async def next_due(*_: object) -> object:
        raise ZeroDivisionError("a defect")

    running.drivers[0].next_due = next_due  # type: ignore[method-assign, assignment]
    await running.recorder.wait(WorkerStopping)
    Gated.gate.set()
    ended = await running.ended()
    assert ended.reason is Reason.CRASHED
    assert running.store.rows == {}, "what ran was finished and written"
    assert "a service of the worker failed" in caplog.text


async def test_a_worker_whose_slots_are_all_stuck_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Executor", with_short_timeouts)
    running = Running(concurrency=2)
    running.store.put(Stuck(), Stuck(), Stuck())
    ended = await running.ended()
    Stuck.release.set()
    assert (ended.reason, ended.stuck) == (Reason.STUCK, 2)
    assert len(running.recorder.of(JobOverdue)) == 2
    assert len(running.store.failed) == 2
    assert [row.attempts for row in running.store.rows.values()] == [0]


async def test_empty_does_not_mean_that_what_is_stuck_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Executor", with_short_timeouts)
    running = Running(concurrency=2, stop_when_empty=True)
    running.store.put(Stuck(), Quick())
    ended = await running.ended()
    Stuck.release.set()
    assert (ended.reason, ended.stuck) == (Reason.EMPTY, 1)
    assert len(running.store.failed) == 1


def with_short_timeouts(*arguments: Any, **options: Any) -> Executor:
    return Executor(*arguments, cancel_steps=(0.02, 0.02), **options)


async def test_a_rest_keeps_the_slot_for_a_while() -> None:
    running = Running(concurrency=1, rest=0.1, stop_when_empty=True)
    running.store.put(Quick(), Quick(), Quick())
    running.start()
    await running.recorder.wait(JobStarted)
    began = time.monotonic()
    await running.recorder.wait(JobStarted, 3)
    assert time.monotonic() - began >= 0.19
    await running.ended()


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    running = Running(grace=0)
    running.store.put(Gated(), Quick(), Flaky())
    running.start()
    await running.recorder.wait(JobSettled, 2)
    await running.stopped()
    assert asyncio.all_tasks() == before


async def test_jobs_run_at_the_same_time_on_one_loop() -> None:
    barrier = asyncio.Barrier(3)

    class Meets(Job):
        timeout = 5

        async def handle(self) -> None:
            await barrier.wait()

    running = Running(stop_when_empty=True)
    running.store.put(Meets(), Meets(), Meets())
    await running.ended()
    assert running.recorder.of(WorkerStopped) == [WorkerStopped("test", 3, 0, 0)]


async def test_the_hook_is_not_called_by_a_zombie() -> None:
    hooked = []

    class Loses(Job):
        max_tries = 1

        async def handle(self) -> None:
            running.store.steal(self.context.job_id)
            raise ValueError

        async def failed(self, error: BaseException) -> None:
            hooked.append(error)

    running = Running()
    running.store.put(Loses())
    running.start()
    await running.recorder.wait(LeaseLost)
    await running.stopped()
    assert hooked == []
    assert running.store.failed == {}
