"""Reasons, limits, and what running jobs get when a worker stops."""

from __future__ import annotations

import asyncio
import threading

import pytest

from outbox import clock
from outbox.runtime.process.exit_codes import ExitCode, Reason
from outbox.runtime.process.graceful_shutdown import GracefulShutdown
from outbox.runtime.process.limits import MemoryLimit, StopWhenEmpty, TimeLimit, resident_mib
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.slots import Slots


async def test_the_first_reason_counts_unless_an_urgent_one_follows() -> None:
    stop = StopRequest()
    stop.request(Reason.MAX_JOBS)
    stop.request(Reason.MEMORY)
    assert stop.reason is Reason.MAX_JOBS
    assert stop.urgent_since is None
    stop.request(Reason.SIGNAL)
    stop.request(Reason.CRASHED)
    assert stop.reason is Reason.SIGNAL


async def test_a_request_from_another_thread_wakes_the_worker() -> None:
    stop = StopRequest()
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(stop.wait_urgent())]
    await asyncio.sleep(0.01)
    threading.Thread(target=stop.request, args=(Reason.SIGNAL,)).start()
    await asyncio.gather(*waits)


async def test_a_request_made_before_anybody_waits_counts() -> None:
    stop = StopRequest()
    stop.request(Reason.SIGNAL)
    await stop.wait()
    await stop.wait_urgent()


@pytest.mark.parametrize("reason", list(Reason))
def test_a_supervisor_can_tell_done_from_replace_me(reason: Reason) -> None:
    alone, supervised = reason.exit_code(supervised=False), reason.exit_code(supervised=True)
    if reason in (Reason.ONCE, Reason.EMPTY):
        assert alone is supervised is ExitCode.OK
    elif alone is ExitCode.OK:
        assert supervised is ExitCode.RECYCLE
    else:
        assert alone is supervised


class Draining:
    def __init__(self, running: int, grace: float) -> None:
        self.slots = Slots(10)
        self.stop = StopRequest()
        self.interrupted: list[float] = []
        self.drain = GracefulShutdown(self.interrupt, slots=self.slots, stop=self.stop, grace=grace)
        self.slots.running = running
        self.obey = True

    def interrupt(self) -> None:
        if self.slots.running:
            self.interrupted.append(clock.now())
        while self.obey and self.slots.running:
            self.slots.release()


async def test_jobs_that_end_within_the_grace_are_not_interrupted() -> None:
    bench = Draining(running=1, grace=60)
    bench.stop.request(Reason.SIGNAL)
    stopping = asyncio.create_task(bench.drain.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    bench.slots.release()
    async with asyncio.timeout(10):
        await stopping
        await bench.drain.stop()
    assert bench.interrupted == []


async def test_what_still_runs_after_the_grace_is_interrupted() -> None:
    bench = Draining(running=2, grace=0.1)
    bench.stop.request(Reason.SIGNAL)
    await bench.drain.stop()
    assert bench.stop.urgent_since is not None
    assert bench.interrupted[0] - bench.stop.urgent_since >= 0.09


async def test_a_worker_that_stops_by_its_own_choice_waits_until_it_is_told_to_hurry() -> None:
    bench = Draining(running=1, grace=0.05)
    bench.stop.request(Reason.MAX_JOBS)
    stopping = asyncio.create_task(bench.drain.stop())
    await asyncio.sleep(0.15)
    assert not stopping.done()
    assert bench.interrupted == []
    bench.stop.request(Reason.SIGNAL)
    await stopping
    assert len(bench.interrupted) == 1


async def test_what_is_stuck_is_not_waited_for() -> None:
    bench = Draining(running=1, grace=0.05)
    bench.obey = False
    bench.stop.request(Reason.SIGNAL)
    stopping = asyncio.create_task(bench.drain.stop())
    await asyncio.sleep(0.15)
    assert not stopping.done()
    bench.slots.mark_stuck()
    await stopping


async def test_nothing_running_is_drained_at_once() -> None:
    bench = Draining(running=0, grace=60)
    bench.stop.request(Reason.SIGNAL)
    async with asyncio.timeout(10):
        await bench.drain.start()
        await bench.drain.stop()
    assert bench.interrupted == []


async def test_the_limit_of_time() -> None:
    stop = StopRequest()
    limit = TimeLimit(0.05, stop)
    began = clock.now()
    await limit.start()
    await stop.wait()
    assert clock.now() - began >= 0.05
    assert stop.reason is Reason.MAX_TIME
    await limit.stop()


async def test_a_limit_of_time_that_is_stopped_says_nothing() -> None:
    stop = StopRequest()
    limit = TimeLimit(60, stop)
    await limit.start()
    await limit.stop()
    assert stop.reason is None


async def test_the_limit_of_memory() -> None:
    stop, readings = StopRequest(), [10.0, 99.0, 101.0]
    limit = MemoryLimit(100, stop, every=0.01, measure=lambda: readings.pop(0))
    await limit.start()
    await stop.wait()
    assert stop.reason is Reason.MEMORY
    assert readings == []
    await limit.stop()


def test_memory_is_measured() -> None:
    assert 5 < resident_mib() < 5000


def test_every_consumer_must_be_empty_since_the_last_job() -> None:
    slots, stop = Slots(10), StopRequest()
    stop_when_empty = StopWhenEmpty(2, Reason.EMPTY, slots, stop)
    stop_when_empty.found("a")
    assert stop.reason is None
    slots.use(0, 1)
    stop_when_empty.found("b")
    assert stop.reason is None, "a job runs, which may dispatch to a"
    slots.release()
    stop_when_empty.found("b")
    assert stop.reason is None, "a was looked at before that job"
    stop_when_empty.found("a")
    assert stop.reason is Reason.EMPTY


def test_what_is_stuck_does_not_keep_a_worker_from_being_done() -> None:
    slots, stop = Slots(10), StopRequest()
    stop_when_empty = StopWhenEmpty(1, Reason.EMPTY, slots, stop)
    slots.use(0, 2)
    slots.mark_stuck()
    stop_when_empty.found("a")
    assert stop.reason is None, "one of the two is not"
    slots.release()
    stop_when_empty.found("a")
    assert stop.reason is Reason.EMPTY
