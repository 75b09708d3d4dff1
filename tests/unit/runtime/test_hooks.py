"""``failed()`` of jobs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from outbox.drivers.values import Claim
from outbox.events import HookFailed
from outbox.job import Job
from outbox.middleware.thread_call import Threads
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.failed_hook import FailedHooks
from outbox.runtime.slots import Slots
from outbox.settings import WorkerOptions
from tests.unit.runtime.memory import Recorder, claim_of, until


class Hooked(Job):
    number: int = 7
    seen: ClassVar[list[tuple[int, BaseException, bool]]] = []

    async def handle(self) -> None: ...

    async def failed(self, error: BaseException) -> None:
        self.seen.append((self.number, error, threading.current_thread() is threading.main_thread()))


class HookedInThread(Hooked):
    def failed(self, error: BaseException) -> None:  # type: ignore[override]
        self.seen.append((self.number, error, threading.current_thread() is threading.main_thread()))


class Bench:
    def __init__(self) -> None:
        self.threads = Threads()
        self.slots = Slots(5)
        self.recorder = Recorder()
        self.failed_hooks = FailedHooks(
            WorkerOptions(timeout=30), self.slots, self.threads, self.recorder.events, cancel_steps=(0.02, 0.02)
        )

    def call(self, job: Job, *, loaded: bool = True) -> ValueError:
        attempt = Attempt(claim_of(job), "memory", lambda attempt: None)
        attempt.job = job if loaded else None
        attempt.error = error = ValueError("the reason")
        self.failed_hooks.call(attempt)
        return error

    async def run(self, claim: Claim) -> None:
        """Call the hook of a job that was never loaded."""
        attempt = Attempt(claim, "memory", lambda attempt: None)
        attempt.error = ValueError("the reason")
        self.failed_hooks.call(attempt)
        await self.slots.idle()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    Hooked.seen.clear()
    bench = Bench()
    yield bench
    await bench.threads.stop()


@pytest.mark.parametrize("kind", [Hooked, HookedInThread])
@pytest.mark.parametrize("loaded", [True, False])
async def test_the_hook_gets_the_job_and_the_error(bench: Bench, kind: type[Hooked], loaded: bool) -> None:
    error = bench.call(kind(), loaded=loaded)
    assert bench.slots.running == 1, "a hook occupies a slot"
    await bench.slots.idle()
    assert Hooked.seen == [(7, error, kind is Hooked)]
    assert bench.slots.running == 0
    assert bench.recorder.seen == []


async def test_the_hook_of_a_job_whose_workers_died_has_the_context_that_any_other_has(bench: Bench) -> None:
    seen = []

    class Asks(Job):
        max_tries = 2

        async def handle(self) -> None: ...

        async def failed(self, error: BaseException) -> None:
            context = self.context
            seen.append((context.job_id, context.attempt, context.max_tries, context.queue, context.connection))

    claim = claim_of(Asks(), attempt=3, rescued=True)
    await bench.run(claim)
    assert seen == [(claim.fence.job_id, 3, 2, "default", "memory")]
    assert bench.recorder.seen == []


async def test_a_job_without_a_hook_costs_nothing(bench: Bench) -> None:
    class SqlConnection(Job):
        async def handle(self) -> None: ...

    bench.call(SqlConnection())
    assert bench.slots.running == 0


@pytest.mark.parametrize("raised", [ValueError("hook"), SystemExit(1), KeyboardInterrupt()])
async def test_what_a_hook_raises_is_reported_and_changes_nothing(bench: Bench, raised: BaseException) -> None:
    class Breaks(Job):
        async def handle(self) -> None: ...

        async def failed(self, error: BaseException) -> None:
            raise raised

    bench.call(Breaks())
    (event,) = await bench.recorder.wait(HookFailed)
    assert isinstance(event, HookFailed)
    assert event.failure.type == type(raised).__name__
    await bench.slots.idle()


async def test_a_hook_has_the_timeout_of_its_job(bench: Bench) -> None:
    class Endless(Job):
        timeout = 0.05

        async def handle(self) -> None: ...

        async def failed(self, error: BaseException) -> None:
            await asyncio.Event().wait()

    bench.call(Endless())
    await bench.recorder.wait(HookFailed)
    await until(lambda: bench.slots.running == 0)


async def test_a_hook_that_does_not_stop_is_given_up_and_keeps_its_slot(bench: Bench) -> None:
    release = asyncio.Event()

    class Stubborn(Job):
        timeout = 0.05

        async def handle(self) -> None: ...

        async def failed(self, error: BaseException) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    bench.call(Stubborn())
    await bench.recorder.wait(HookFailed)
    assert (bench.slots.running, bench.slots.stuck) == (1, 1)
    release.set()
    await until(lambda: bench.slots.running == 0)
    assert bench.slots.stuck == 0
    assert len(bench.recorder.seen) == 1


async def test_running_hooks_can_be_told_to_stop(bench: Bench) -> None:
    class Long(Job):
        timeout = 0

        async def handle(self) -> None: ...

        async def failed(self, error: BaseException) -> None:
            await asyncio.Event().wait()

    bench.call(Long())
    await asyncio.sleep(0.01)
    bench.failed_hooks.interrupt()
    await bench.slots.idle()
