"""Functions that applications put around handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest

import outbox
from outbox.errors import ConfigurationError
from outbox.middleware.application import load_middleware
from outbox.middleware.thread_call import Threads
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.settings import WorkerOptions
from outbox.settlement import Outcome, Settlement
from tests.unit.runtime.memory import Recorder, claim_of

steps: list[str] = []
tenant: ContextVar[str] = ContextVar("tenant", default="none")


async def of_worker(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    steps.append("worker begins")
    try:
        return await call_next(job)
    finally:
        steps.append("worker ends")


async def of_class(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    steps.append("class")
    tenant.set("acme")
    return await call_next(job)


async def skips(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    steps.append("skipped")


async def releases(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    await call_next(job)
    job.context.release(5)


async def refuses(job: outbox.Job, call_next: outbox.CallNext) -> Any:
    raise PermissionError("not now")


class Surrounded(outbox.Job):
    middleware: ClassVar = [of_class]

    async def handle(self) -> None:
        steps.append(f"handle of {tenant.get()}")


class InThread(Surrounded):
    def handle(self) -> None:  # type: ignore[override]
        steps.append(f"thread of {tenant.get()}")


class Skipped(Surrounded):
    middleware: ClassVar = [skips]


class ReleasedByMiddleware(Surrounded):
    middleware: ClassVar = [releases]


class Refused(Surrounded):
    middleware: ClassVar = [refuses]


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    steps.clear()
    threads = Threads()
    yield threads
    await threads.stop()


async def run(job: outbox.Job, threads: Threads, *middleware: str) -> Settlement | None:
    options = WorkerOptions(middleware=middleware, timeout=30)
    executor = Executor(options, threads, Recorder().events)
    return await executor.run(Attempt(claim_of(job), "memory", lambda attempt: None))


HERE = f"{__name__}:of_worker"


@pytest.mark.parametrize(("kind", "handled"), [(Surrounded, "handle of acme"), (InThread, "thread of acme")])
async def test_the_workers_are_outside_those_of_the_class(
    threads: Threads, kind: type[outbox.Job], handled: str
) -> None:
    settlement = await run(kind(), threads, HERE)
    assert settlement is not None
    assert settlement.outcome is Outcome.COMPLETED
    assert steps == ["worker begins", "class", handled, "worker ends"]


async def test_what_is_not_called_does_not_run(threads: Threads) -> None:
    settlement = await run(Skipped(), threads)
    assert settlement is not None
    assert settlement.outcome is Outcome.COMPLETED
    assert steps == ["skipped"]


async def test_a_middleware_decides_through_the_context(threads: Threads) -> None:
    settlement = await run(ReleasedByMiddleware(), threads)
    assert settlement is not None
    assert (settlement.outcome, settlement.delay) == (Outcome.RELEASED, 5)


async def test_what_a_middleware_raises_is_the_failure(threads: Threads) -> None:
    settlement = await run(Refused(), threads, HERE)
    assert settlement is not None
    assert settlement.outcome is Outcome.RETRIED
    assert settlement.failure is not None
    assert settlement.failure.type == "PermissionError"
    assert steps == ["worker begins", "worker ends"]


def no_coroutine(job: outbox.Job, call_next: outbox.CallNext) -> None: ...


async def too_few(job: outbox.Job) -> None: ...


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        ("of_class", "middleware is a list of functions"),
        ([no_coroutine], "a middleware is an `async def` of"),
        ([too_few], "too many positional arguments"),
    ],
)
def test_a_class_with_anything_else_is_refused(middleware: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        type("Wrong", (outbox.Job,), {"__module__": __name__, "middleware": middleware})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nothing", "is not MODULE:FUNCTION"),
        ("no_such_module:function", "cannot be imported"),
        (f"{__name__}:missing", "has no 'missing'"),
        (f"{__name__}:no_coroutine", "a middleware is an `async def` of"),
    ],
)
def test_a_worker_names_what_it_cannot_use(reference: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_middleware([reference])
