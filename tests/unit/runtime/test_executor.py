"""How attempts end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import field_validator

from outbox.backoff import Backoff
from outbox.envelope import Headers
from outbox.events import JobStarted
from outbox.job import Job
from outbox.options import JobOptions
from outbox.settlement import Outcome
from tests.unit.runtime.attempts import Bench, failure_of
from tests.unit.runtime.memory import claim_of


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
    assert Path(__file__).name in settlement.failure.traceback
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


async def test_job_started_is_told_to_those_who_listen(bench: Bench) -> None:
    await bench.run(Fine(), rescued=True)
    (started,) = bench.recorder.of(JobStarted)
    assert isinstance(started, JobStarted)
    assert started.rescued
