"""Calls ``handle`` with a session, and commits what it has written together with the end of its job."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from outbox.drivers.database.connection.errors import Fault, classify
from outbox.handler_parameters import parameters_of
from outbox.middleware.completion import Completion
from outbox.middleware.context import follow_up, load_job
from outbox.middleware.next_jobs import keep_result
from outbox.middleware.results import HandlerResult
from outbox.middleware.thread_call import Threads, run_in_thread

if TYPE_CHECKING:
    from outbox.job import Job
    from outbox.middleware.job_sessions import JobSessions
    from outbox.middleware.results import Handler
    from outbox.runtime.execution.attempt import Attempt

_TRIES = 4
"""How often the handler runs in one attempt while the database resolves conflicts by rolling back."""


def handler(kind: type[Job], threads: Threads, sessions: JobSessions) -> Handler:
    """The innermost link for a job class whose ``handle`` takes a session.

    The order is: flush, the fenced DELETE of the job's row, COMMIT. The row is locked for the last moment only, so that
    renewals of the lease do not wait for the handler. If the handler raises, or decides through its context how the
    attempt ends, its transaction is rolled back.
    """
    is_coroutine = inspect.iscoroutinefunction(kind.handle)  # type: ignore[attr-defined]

    async def call(attempt: Attempt) -> HandlerResult:
        for left in reversed(range(_TRIES)):
            try:
                return await (
                    _call_async(attempt, sessions) if is_coroutine else _in_thread(attempt, threads, sessions)
                )
            except DBAPIError as error:
                if not left or classify(error) is not Fault.CONTENDED:
                    raise
            _load_again(attempt, kind, sessions)
        raise AssertionError

    return call


async def _call_async(attempt: Attempt, sessions: JobSessions) -> HandlerResult:
    job, completion = _parts(attempt)
    async with sessions.open(attempt.connection) as session:
        value = await _handle(job, attempt, session)
        if job.context.decision is None and not completion.settled:
            keep_result(attempt, value)

            async def finish() -> None:
                await completion.complete(session)
                await session.commit()

            await _uninterrupted(finish)
    return HandlerResult(value, job.context.decision)


async def _in_thread(attempt: Attempt, threads: Threads, sessions: JobSessions) -> HandlerResult:
    job, completion = _parts(attempt)

    def call() -> Any:
        with sessions.open_sync(attempt.connection) as session:
            value = _handle(job, attempt, session)
            if job.context.decision is None and not completion.settled:
                keep_result(attempt, value)
                completion.write(session)
                session.commit()
        return value

    assert attempt.call is not None  # noqa: S101 - for the type checker: begun
    return HandlerResult(await run_in_thread(threads, attempt.call, call), job.context.decision)


def _handle(job: Any, attempt: Attempt, session: Any) -> Any:
    if not attempt.arguments:
        return job.handle(session)
    kind: type = type(job)
    return job.handle(**{str(parameters_of(kind).session): session}, **attempt.arguments)


def _load_again(attempt: Attempt, kind: type[Job], sessions: JobSessions) -> None:
    """The handler may have altered its job."""
    completion = Completion(attempt.claim, attempt.connection, sessions)
    max_tries = attempt.policy.max_tries if attempt.policy is not None else 1
    if attempt.chain is not None:
        attempt.chain.undo()
    if attempt.batch is not None:
        attempt.batch.added.clear()
    completion.follow_up = follow_up(attempt)
    attempt.job = load_job(kind, attempt, max_tries, completion)


def _parts(attempt: Attempt) -> tuple[Any, Completion]:
    assert attempt.completion is not None  # noqa: S101 - for the type checker: made with the job
    return attempt.job, attempt.completion


async def _uninterrupted(finish: Callable[[], Awaitable[None]]) -> None:
    """A connection whose COMMIT is cancelled does not tell what became of it, so an interruption waits for the answer.
    It counts if nothing was committed."""
    finishing = asyncio.ensure_future(finish())
    interrupted: asyncio.CancelledError | None = None
    while not finishing.done():
        try:
            await asyncio.wait([finishing])
        except asyncio.CancelledError as error:
            interrupted = error
    try:
        finishing.result()
    except BaseException:
        if interrupted is not None:
            raise interrupted from None
        raise
