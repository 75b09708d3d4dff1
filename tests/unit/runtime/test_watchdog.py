"""Handlers that block the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outbox import clock
from outbox.events import LoopBlocked, WorkerKilled
from outbox.job import Job
from outbox.middleware.cancellation import HandlerCall
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.process.exit_codes import ExitCode, Reason
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.process.watchdog import Watchdog
from tests.unit.runtime.memory import Recorder, claim_of


class Blocks(Job):
    async def handle(self) -> None: ...


class Watched:
    """The watchdog in its own thread, and this test's loop as what it watches."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.attempts: list[Attempt] = []
        self.stop = StopRequest()
        self.killed: list[int] = []
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._finish: Callable[[], None] = lambda: None

    def start(self, hard_grace: float = 60, grace: float = 60, timeout: float = 0) -> None:
        watchdog = Watchdog(
            worker="test",
            loop=asyncio.get_running_loop(),
            thread=threading.get_ident(),
            attempts=lambda: list(self.attempts),
            stop=self.stop,
            grace=grace,
            timeout=timeout,
            events=self.recorder.events,
            kill=self._kill,
            hard_grace=hard_grace,
        )
        ready = threading.Event()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            self._finish = lambda: loop.call_soon_threadsafe(done.set)  # type: ignore[assignment, return-value]
            await watchdog.start()
            ready.set()
            await done.wait()
            await watchdog.stop()

        self._threads.append(threading.Thread(target=lambda: asyncio.run(main())))
        self._threads[0].start()
        assert ready.wait(10)

    def _kill(self, code: int) -> None:
        self.killed.append(code)
        self._done.set()

    def finish(self) -> None:
        self._finish()
        for thread in self._threads:
            thread.join(10)

    def attempt(self, timeout: float) -> Attempt:
        attempt = Attempt(claim_of(Blocks()), "memory", lambda attempt: None)
        attempt.begin(HandlerCall(lambda: None))
        attempt.timeout = timeout
        self.attempts.append(attempt)
        return attempt

    def block_until(self, condition: Callable[[], Any]) -> None:
        """What a bad handler does."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.finish()


async def test_a_blocked_loop_is_reported_once_with_its_stack_and_what_runs(watched: Watched) -> None:
    attempt = watched.attempt(timeout=0)
    watched.start()
    watched.block_until(lambda: watched.recorder.seen)
    (event,) = watched.recorder.seen
    assert isinstance(event, LoopBlocked)
    assert event.seconds >= 1
    assert "block_until" in event.stack
    assert event.running == (f"{Blocks.name} {attempt.fence.job_id}",)
    time.sleep(1.2)
    assert len(watched.recorder.seen) == 1, "an episode is reported once"


async def test_a_loop_that_answers_is_not_reported(watched: Watched) -> None:
    watched.attempt(timeout=0)
    watched.start()
    await asyncio.sleep(1.5)
    assert watched.recorder.seen == []


async def test_a_loop_that_no_handler_blocks_is_watched_as_well(watched: Watched) -> None:
    watched.start(hard_grace=1, timeout=0.2)
    watched.block_until(lambda: watched.killed)
    killed = watched.recorder.of(WorkerKilled)[0]
    assert isinstance(killed, WorkerKilled)
    assert "not by a handler" in killed.reason


async def test_the_process_is_ended_when_a_job_is_long_past_its_timeout(watched: Watched) -> None:
    watched.attempt(timeout=0.1)
    watched.start(hard_grace=1.2)
    began = clock.now()
    watched.block_until(lambda: watched.killed)
    assert clock.now() - began >= 1.2
    assert watched.killed[0] == ExitCode.BLOCKED
    killed = watched.recorder.of(WorkerKilled)[0]
    assert isinstance(killed, WorkerKilled)
    assert Blocks.name in killed.reason


async def test_a_job_without_a_timeout_may_block_as_long_as_it_likes(watched: Watched) -> None:
    watched.attempt(timeout=0)
    watched.start(hard_grace=0.5)
    time.sleep(2)
    assert watched.killed == []


async def test_the_process_is_ended_when_it_should_have_stopped_long_ago(watched: Watched) -> None:
    watched.attempt(timeout=0)
    watched.stop.request(Reason.SIGNAL)
    watched.start(hard_grace=1, grace=0.2)
    watched.block_until(lambda: watched.killed)
    killed = watched.recorder.of(WorkerKilled)[0]
    assert isinstance(killed, WorkerKilled)
    assert "should stop" in killed.reason
