"""A whole worker in this process, on a store that can be held and broken at will."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from outbox.events import (
    JobOverdue,
    JobSettled,
    JobStarted,
    LeaseLost,
    WorkerStopped,
    WorkerStopping,
)
from outbox.job import Job
from outbox.options import JobOptions
from outbox.runtime import store_client
from outbox.runtime import worker as module
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.protected_task import ProtectedTask
from outbox.runtime.process.exit_codes import Reason
from outbox.settlement import Outcome
from tests.unit.runtime.memory import until
from tests.unit.runtime.running import Flaky, Gated, Quick, Running, Stuck


@pytest.fixture
def kept_garbage() -> Iterator[None]:
    """No collection meanwhile."""
    gc.disable()
    yield
    gc.enable()


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


@pytest.mark.usefixtures("kept_garbage")
async def test_jobs_that_have_ended_leave_nothing_for_the_garbage_collector() -> None:
    running = Running(stop_when_empty=True, concurrency=3)
    running.store.put(*(Quick() for _ in range(25)))
    await running.ended()
    assert len(running.recorder.of(JobSettled)) == 25
    left = [each for each in gc.get_objects() if isinstance(each, ProtectedTask) and each.get_name() == Quick.name]
    assert left == []


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
