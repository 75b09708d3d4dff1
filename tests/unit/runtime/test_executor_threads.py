"""Plain functions, which run in threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Generator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import pytest

from outbox.events import JobOverdue
from outbox.job import Job
from outbox.middleware.thread_call import Threads
from outbox.settlement import Outcome
from tests.unit.runtime.attempts import Bench, failure_of
from tests.unit.runtime.memory import claim_of


async def test_a_plain_function_runs_in_a_thread_with_the_context_variables(bench: Bench) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[object] = []

    class SqlConnection(Job):
        def handle(self) -> None:
            seen.extend((threading.current_thread(), variable.get(), self.context.attempt))

    variable.set("set")
    settlement = await bench.run(SqlConnection())
    assert settlement is not None
    assert settlement.outcome is Outcome.COMPLETED
    assert seen[0] is not threading.main_thread()
    assert seen[1:] == ["set", 1]


async def test_a_plain_function_that_returns_an_awaitable_is_awaited_on_the_loop(bench: Bench) -> None:
    seen = []

    async def rest() -> None:
        seen.append(threading.current_thread() is threading.main_thread())
        await asyncio.Event().wait()

    class Wrapped(Job):
        timeout = 0.05

        def handle(self) -> Awaitable[None]:
            return rest()

    settlement = await bench.run(Wrapped())
    assert settlement is not None
    assert failure_of(settlement)[0] == "outbox.errors.JobTimeout"
    assert seen == [True]


async def test_a_generator_is_refused_rather_than_completed_without_having_run(bench: Bench) -> None:
    class Generates(Job):
        def handle(self) -> Generator[None]:
            yield

    class GeneratesAsync(Job):
        async def handle(self) -> AsyncIterator[None]:
            yield

    for job in (Generates(), GeneratesAsync()):
        settlement = await bench.run(job)
        assert settlement is not None
        assert settlement.outcome is Outcome.RETRIED
        assert "generator" in failure_of(settlement)[1]


class Spins(Job):
    """Runs bytecode until it is stopped from outside."""

    timeout = 0.05
    stop: ClassVar[threading.Event]
    caught: ClassVar[list[str]]
    stubborn: bool = False

    def handle(self) -> None:
        while not self.stop.is_set():
            try:
                while not self.stop.is_set():
                    time.sleep(0.001)
            except BaseException as error:
                self.caught.append(type(error).__name__)
                if not self.stubborn:
                    raise


@pytest.fixture
def spinning() -> Any:
    Spins.stop, Spins.caught = threading.Event(), []
    yield
    Spins.stop.set()


async def test_a_timeout_reaches_a_plain_function(threads: Threads, spinning: None) -> None:
    settlement = await Bench(threads, cancel_steps=(20.0, 20.0)).run(Spins())
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert failure_of(settlement)[0] == "outbox.errors.JobTimeout"
    assert Spins.caught == ["Interrupted"]
    assert Path(__file__).name in (settlement.failure.traceback if settlement.failure else "")


async def test_a_plain_function_that_does_not_stop_is_given_up(bench: Bench, spinning: None) -> None:
    attempt, task = bench.begin(claim_of(Spins(stubborn=True)))
    await bench.recorder.wait(JobOverdue)
    assert attempt.overdue
    assert attempt.settlement is not None
    assert attempt.settlement.outcome is Outcome.RETRIED
    assert not task.done()
    Spins.stop.set()
    await task
    assert bench.ended == [attempt]


async def test_an_interruption_never_hits_the_next_job_of_a_thread(bench: Bench, threads: Threads) -> None:
    """Interrupts land at every moment around the end of a function; what runs next in the same thread sees none."""
    for round_ in range(300):
        call = threads.call(lambda: sum(range(200)))
        if round_ % 3:
            await asyncio.sleep(0)
        call.interrupt()
        value, error = await call.returned
        assert error is not None or value == sum(range(200))
        value, error = await threads.call(lambda: sum(range(2000))).returned
        assert error is None
        assert value == sum(range(2000))


UNDER_A_PROFILER = """
import asyncio, sys, time
from outbox.middleware.thread_call import Threads

async def main():
    call = Threads().call({function})
    {then}
    print(type((await call.returned).error).__name__)
    sys.setprofile(lambda *_: None)
    (lambda: None)()
    await asyncio.sleep(0.01)
    print("goes on")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("function", "then", "raised"),
    [
        ("abs, -1", "", "NoneType"),
        ("lambda: [time.sleep(0.01) for _ in range(50)]", "time.sleep(0.1); call.interrupt()", "Interrupted"),
        ("time.sleep, 0.3", "time.sleep(0.1); call.interrupt()", "Interrupted"),
    ],
    ids=["returns", "interrupted", "interrupted late"],
)
def test_a_profiler_or_a_tracer_does_not_stop_the_process_after_it(function: str, then: str, raised: str) -> None:
    script = UNDER_A_PROFILER.format(function=function, then=then)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout.split()) == (0, [raised, "goes", "on"]), ran.stderr
