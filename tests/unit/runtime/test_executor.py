"""How attempts end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Generator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from pydantic import field_validator

from outbox.backoff import Backoff
from outbox.drivers.values import Claim
from outbox.envelope import Headers
from outbox.events import JobOverdue, JobStarted
from outbox.job import Job
from outbox.middleware.interruption import Interruption
from outbox.middleware.thread_call import Threads
from outbox.options import JobOptions
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import OVERDUE_DELAY, Executor
from outbox.settings import WorkerOptions
from outbox.settlement import Outcome, Settlement
from tests.unit.runtime.memory import Recorder, claim_of, until

CANCEL_STEPS = (0.02, 0.02)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads()
    yield threads
    await threads.stop()


class Bench:
    """Runs attempts as a lane does, and keeps what they ended with."""

    def __init__(self, threads: Threads) -> None:
        self.recorder = Recorder()
        self.executor = Executor(
            WorkerOptions(max_tries=3, timeout=30, backoff=(7.0,)),
            threads,
            self.recorder.events,
            cancel_steps=CANCEL_STEPS,
        )
        self.ended: list[Attempt] = []

    def begin(self, claim: Claim) -> tuple[Attempt, asyncio.Task[None]]:
        attempt = Attempt(claim, "memory", self.ended.append)

        async def run() -> None:
            attempt.end(await self.executor.run(attempt))

        return attempt, asyncio.create_task(run())

    async def run(self, job: Job, **claim: Any) -> Settlement | None:
        attempt, task = self.begin(claim_of(job, **claim))
        await task
        assert self.ended == [attempt]
        self.ended.clear()
        return attempt.settlement


@pytest.fixture
def bench(threads: Threads) -> Bench:
    return Bench(threads)


def failure_of(settlement: Settlement | None) -> tuple[str, str]:
    assert settlement is not None
    assert settlement.failure is not None
    return settlement.failure.type, settlement.failure.message


class Fine(Job):
    number: int = 1

    async def handle(self) -> None:
        self.context.max_tries += 0


class Decides(Job):
    decision: str
    raises: bool = False

    async def handle(self) -> None:
        getattr(self.context, self.decision)(
            *{"release": (5,), "snooze": (6,), "fail": ("no good",), "delete": ()}[self.decision]
        )
        if self.raises:
            raise ValueError("after all")


class Raises(Job):
    kind: str
    raisable: ClassVar[dict[str, BaseException]] = {
        "ValueError": ValueError("bad"),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "CancelledError": asyncio.CancelledError(),
        "StopIteration": StopIteration(),
        "TimeoutError": TimeoutError("own"),
        "BaseExceptionGroup": BaseExceptionGroup("several", [SystemExit(1), ValueError()]),
    }

    async def handle(self) -> None:
        raise self.raisable[self.kind]


class RaisesInThread(Raises):
    def handle(self) -> None:  # type: ignore[override]
        raise self.raisable[self.kind]


async def test_a_job_that_returns_is_completed(bench: Bench) -> None:
    settlement = await bench.run(Fine())
    assert settlement is not None
    assert settlement.outcome is Outcome.COMPLETED


async def test_the_context_says_what_is_run(bench: Bench) -> None:
    seen = []

    class Looks(Job):
        async def handle(self) -> None:
            seen.append(self.context)

    claim = claim_of(Looks(), attempt=2)._replace(queue="mail")
    _, task = bench.begin(claim)
    await task
    (context,) = seen
    assert (context.job_id, context.attempt, context.max_tries) == (claim.fence.job_id, 2, 3)
    assert (context.queue, context.connection) == ("mail", "memory")


@pytest.mark.parametrize(
    ("decision", "outcome", "delay"),
    [
        ("release", Outcome.RELEASED, 5),
        ("snooze", Outcome.SNOOZED, 6),
        ("fail", Outcome.FAILED, 0),
        ("delete", Outcome.CANCELLED, 0),
    ],
)
async def test_a_decision_applies_when_the_job_returns(
    bench: Bench, decision: str, outcome: Outcome, delay: float
) -> None:
    settlement = await bench.run(Decides(decision=decision))
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (outcome, delay)


@pytest.mark.parametrize("decision", ["release", "snooze", "delete"])
async def test_an_exception_goes_before_a_decision(bench: Bench, decision: str) -> None:
    settlement = await bench.run(Decides(decision=decision, raises=True))
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert failure_of(settlement) == ("ValueError", "after all")


async def test_a_job_that_failed_itself_has_failed_whatever_it_raises(bench: Bench) -> None:
    settlement = await bench.run(Decides(decision="fail", raises=True))
    assert settlement is not None
    assert settlement.outcome is Outcome.FAILED
    assert failure_of(settlement) == ("outbox.errors.JobFailed", "no good")


async def test_a_release_on_the_last_attempt_fails_the_job(bench: Bench) -> None:
    settlement = await bench.run(Decides(decision="release"), attempt=3)
    assert settlement is not None
    assert settlement.outcome is Outcome.FAILED
    kind, message = failure_of(settlement)
    assert kind == "outbox.errors.AttemptsExhausted"
    assert "last attempt (3 of 3)" in message


async def test_a_snooze_on_the_last_attempt_is_a_snooze(bench: Bench) -> None:
    settlement = await bench.run(Decides(decision="snooze"), attempt=3)
    assert settlement is not None
    assert settlement.outcome is Outcome.SNOOZED


@pytest.mark.parametrize("job", [Raises, RaisesInThread])
@pytest.mark.parametrize("kind", sorted(Raises.raisable))
async def test_whatever_a_job_raises_is_its_own_failure(bench: Bench, job: type[Raises], kind: str) -> None:
    settlement = await bench.run(job(kind=kind))
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert settlement.delay == 7
    assert settlement.failure is not None
    # Python itself turns a StopIteration that leaves a coroutine into a RuntimeError.
    assert settlement.failure.type.rpartition(".")[2] in (kind, "RuntimeError" if kind == "StopIteration" else kind)
    assert "test_executor.py" in settlement.failure.traceback
    last = await bench.run(job(kind=kind), attempt=3)
    assert last is not None
    assert last.outcome is Outcome.FAILED


async def test_attempts_used_up_by_dead_workers_fail_the_job_without_loading_it(bench: Bench) -> None:
    loaded = []

    class Deadly(Job):
        @field_validator("*", check_fields=False)
        @classmethod
        def die(cls, value: Any) -> Any:
            loaded.append(value)
            return value

        number: int = 1

        async def handle(self) -> None:
            raise AssertionError

    claim = claim_of(Deadly(), attempt=4, rescued=True)
    loaded.clear()
    attempt, task = bench.begin(claim)
    await task
    kind, message = failure_of(attempt.settlement)
    assert kind == "outbox.errors.AttemptsExhausted"
    assert "lease ended 3 times" in message
    assert "the last time, the worker that ran it died" in message
    assert loaded == []


@pytest.mark.parametrize("rescued", [True, False])
async def test_of_attempts_that_are_used_up_it_says_only_what_is_known(bench: Bench, rescued: bool) -> None:
    """The store counts attempts, not how they ended: any but the last may have been a retry. And when that did not end
    with its worker, ``max_tries`` was lowered since."""
    settlement = await bench.run(Fine(), attempt=4, rescued=rescued)
    kind, message = failure_of(settlement)
    assert kind == "outbox.errors.AttemptsExhausted"
    assert "retried, released or lease ended 3 times in all, with max_tries 3" in message
    assert "each time" not in message
    assert ("the last time, the worker that ran it died" in message) is rescued


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "nobody.Knows"}, "outbox.errors.UnknownJob"),
        ({"payload": "{broken"}, "outbox.errors.InvalidPayload"),
        ({"payload": '{"number": "many"}'}, "outbox.errors.InvalidPayload"),
        ({"payload": "[]"}, "outbox.errors.InvalidPayload"),
        ({"payload": ""}, "outbox.errors.InvalidPayload"),
        ({"headers": "nonsense"}, "outbox.errors.InvalidPayload"),
        ({"headers": '{"max_tries": -1}'}, "outbox.errors.InvalidPayload"),
    ],
)
async def test_a_row_that_is_no_job_fails_at_once(bench: Bench, change: dict[str, str], error: str) -> None:
    attempt, task = bench.begin(claim_of(Fine())._replace(**change))
    await task
    assert attempt.settlement is not None
    assert attempt.settlement.outcome is Outcome.FAILED
    assert failure_of(attempt.settlement)[0] == error


@pytest.mark.parametrize("raised", [RuntimeError("validator"), SystemExit(2), KeyboardInterrupt()])
async def test_a_validator_that_raises_anything_fails_the_job(bench: Bench, raised: BaseException) -> None:
    armed = []

    class Explodes(Job):
        number: int

        @field_validator("number")
        @classmethod
        def explode(cls, value: int) -> int:
            if armed:
                raise raised
            return value

        async def handle(self) -> None: ...

    claim = claim_of(Explodes(number=1))
    armed.append(True)
    attempt, task = bench.begin(claim)
    await task
    kind, message = failure_of(attempt.settlement)
    assert kind == "outbox.errors.InvalidPayload"
    assert type(raised).__name__ in message


class Slow(Job):
    timeout = 0.05

    async def handle(self) -> None:
        await asyncio.Event().wait()


async def test_a_timeout_is_a_failure_that_shows_where_the_job_was(bench: Bench) -> None:
    settlement = await bench.run(Slow())
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert settlement.failure is not None
    assert settlement.failure.type == "outbox.errors.JobTimeout"
    assert "0.05 s" in settlement.failure.message
    assert "await asyncio.Event().wait()" in settlement.failure.traceback


async def test_a_timeout_on_the_last_attempt_fails_the_job(bench: Bench) -> None:
    settlement = await bench.run(Slow(), attempt=3)
    assert settlement is not None
    assert settlement.outcome is Outcome.FAILED


async def test_headers_go_before_the_class_and_the_class_before_the_worker(bench: Bench) -> None:
    class Own(Job):
        max_tries = 2
        timeout = 0.05
        backoff = (1, 2)

        async def handle(self) -> None:
            await asyncio.Event().wait()

    settlement = await bench.run(Own())
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RETRIED, 1)
    settlement = await bench.run(Own(), attempt=2)
    assert settlement is not None
    assert settlement.outcome is Outcome.FAILED
    headers = Headers(options=JobOptions(max_tries=5, timeout=0.01, backoff=Backoff((10, 20)))).dump()
    settlement = await bench.run(Own(), attempt=2, headers=headers)
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RETRIED, 20)
    assert "0.01 s" in failure_of(settlement)[1]


async def test_a_timeout_of_zero_is_no_limit(bench: Bench) -> None:
    class Endless(Job):
        timeout = 0

        async def handle(self) -> None:
            await asyncio.sleep(0.1)

    settlement = await bench.run(Endless(), headers=Headers(options=JobOptions(timeout=0.0)).dump())
    assert settlement is not None
    assert settlement.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("result", [11, RuntimeError("broken"), SystemExit(1), -1, float("nan"), None, "soon"])
async def test_a_backoff_method_decides_and_may_be_wrong(bench: Bench, result: Any) -> None:
    class Computes(Job):
        number: int = 2

        def backoff(self, attempt: int) -> float:
            if isinstance(result, BaseException):
                raise result
            return result * self.number * attempt if result == 11 else result

        async def handle(self) -> None:
            raise ValueError

    settlement = await bench.run(Computes(), attempt=2)
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RETRIED, 44 if result == 11 else 7)


# --- told to stop


class Waits(Job):
    """Waits until it is told to stop, and then does as asked."""

    then: str = "raise"
    timeout = 0
    begun: ClassVar[asyncio.Event]

    async def handle(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.then == "raise":
                raise
            if self.then == "release":
                self.context.release(3)
            if self.then == "error":
                raise RuntimeError("because of the cancellation") from None


@pytest.fixture(autouse=True)
def fresh_events() -> None:
    Waits.begun = asyncio.Event()


async def interrupted(bench: Bench, reason: Interruption, then: str = "raise") -> Settlement | None:
    attempt, task = bench.begin(claim_of(Waits(then=then)))
    await Waits.begun.wait()
    attempt.interrupt(reason)
    await task
    return attempt.settlement


@pytest.mark.parametrize("then", ["raise", "return", "error"])
async def test_shutdown_hands_the_job_back_whatever_its_handler_makes_of_it(bench: Bench, then: str) -> None:
    settlement = await interrupted(bench, Interruption.SHUTDOWN, then)
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.SNOOZED, 0)


@pytest.mark.parametrize("then", ["raise", "return", "error"])
async def test_a_timeout_fails_the_attempt_whatever_its_handler_makes_of_it(bench: Bench, then: str) -> None:
    settlement = await interrupted(bench, Interruption.TIMEOUT, then)
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert failure_of(settlement)[0] == "outbox.errors.JobTimeout"


@pytest.mark.parametrize("then", ["raise", "return", "error", "release"])
async def test_nothing_is_written_for_a_lost_lease(bench: Bench, then: str) -> None:
    assert await interrupted(bench, Interruption.LEASE_LOST, then) is None


async def test_a_job_whose_store_is_away_is_handed_back_later(bench: Bench) -> None:
    settlement = await interrupted(bench, Interruption.UNREACHABLE)
    assert settlement is not None
    assert settlement.outcome is Outcome.SNOOZED


async def test_a_decision_made_while_stopping_counts(bench: Bench) -> None:
    settlement = await interrupted(bench, Interruption.SHUTDOWN, "release")
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RELEASED, 3)


async def test_a_job_that_is_told_to_stop_before_it_begins_does_not_begin(bench: Bench) -> None:
    attempt, task = bench.begin(claim_of(Waits()))
    attempt.interrupt(Interruption.SHUTDOWN)
    await task
    assert not Waits.begun.is_set()
    assert attempt.settlement is not None
    assert attempt.settlement.outcome is Outcome.SNOOZED


async def test_a_lost_lease_goes_before_an_earlier_reason(bench: Bench) -> None:
    attempt, task = bench.begin(claim_of(Waits()))
    await Waits.begun.wait()
    attempt.interrupt(Interruption.SHUTDOWN)
    attempt.interrupt(Interruption.LEASE_LOST)
    await task
    assert attempt.settlement is None


class Swallows(Job):
    timeout = 0.02
    release: ClassVar[asyncio.Event]
    cancelled: ClassVar[list[str]]

    async def handle(self) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append("told")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Interruption.TIMEOUT, Outcome.RETRIED),
        (Interruption.SHUTDOWN, Outcome.SNOOZED),
        (Interruption.LEASE_LOST, None),
    ],
)
async def test_a_job_that_does_not_stop_is_given_up_and_its_task_goes_on(
    bench: Bench, reason: Interruption, outcome: Outcome | None
) -> None:
    Swallows.release, Swallows.cancelled = asyncio.Event(), []
    attempt, task = bench.begin(claim_of(Swallows(), headers=Headers(options=JobOptions(timeout=0.0)).dump()))
    await until(lambda: attempt.started is not None)
    attempt.interrupt(reason)
    (overdue,) = await bench.recorder.wait(JobOverdue)
    assert isinstance(overdue, JobOverdue)
    assert overdue.reason == reason.value
    assert bench.ended == [attempt]
    assert (attempt.settlement.outcome if attempt.settlement else None) is outcome
    if outcome is Outcome.SNOOZED:
        assert attempt.settlement is not None
        assert attempt.settlement.delay == OVERDUE_DELAY
    assert len(Swallows.cancelled) == len(CANCEL_STEPS)
    assert not task.done()
    Swallows.release.set()
    await task
    assert bench.ended == [attempt], "what the handler did after it was given up changes nothing"


async def test_what_a_stopped_job_awaited_before_is_not_seen_as_cancelled_later(bench: Bench) -> None:
    tasks = []

    class Survives(Job):
        timeout = 0.02

        async def handle(self) -> None:
            tasks.append(asyncio.current_task())
            await asyncio.Event().wait()

    await bench.run(Survives())
    assert tasks[0].cancelling() == 0


# --- plain functions


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


async def test_a_timeout_reaches_a_plain_function(bench: Bench, spinning: None) -> None:
    settlement = await bench.run(Spins())
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert failure_of(settlement)[0] == "outbox.errors.JobTimeout"
    assert Spins.caught == ["Interrupted"]
    assert "test_executor.py" in (settlement.failure.traceback if settlement.failure else "")


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


async def test_job_started_is_told_to_those_who_listen(bench: Bench) -> None:
    await bench.run(Fine(), rescued=True)
    (started,) = bench.recorder.of(JobStarted)
    assert isinstance(started, JobStarted)
    assert started.rescued
