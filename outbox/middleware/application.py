"""Middleware of applications: functions of ``(job, call_next)`` around ``handle``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from outbox.job_definition import check_middleware
from outbox.middleware.results import HandlerResult
from outbox.registry import load_function

if TYPE_CHECKING:
    from outbox.events import Events
    from outbox.job import CallNext, Job, Middleware
    from outbox.middleware.results import Handler
    from outbox.runtime.execution.attempt import Attempt


attempt_events: ContextVar[Events | None] = ContextVar("outbox_attempt_events", default=None)
"""Who hears what a middleware tells: those who hear of the attempt that it surrounds. None outside of one."""


def link(call_next: Handler, middleware: Sequence[Middleware], events: Events) -> Handler:
    """The first of ``middleware`` is the outermost. A job class without any has no link."""
    if not middleware:
        return call_next

    async def run(attempt: Attempt) -> HandlerResult:
        inner = HandlerResult()

        async def handle(_: Job) -> Any:
            nonlocal inner
            inner = await call_next(attempt)
            return inner.value

        chain: CallNext = handle
        for each in reversed(middleware):
            chain = _around(each, chain)
        assert attempt.job is not None  # noqa: S101 - for the type checker: made by the link of the context
        token = attempt_events.set(events)
        try:
            value = await chain(attempt.job)
        finally:
            attempt_events.reset(token)
        return inner._replace(value=value, decision=attempt.job.context.decision)

    return run


def _around(middleware: Middleware, call_next: CallNext) -> CallNext:
    async def call(job: Job) -> Any:
        return await middleware(job, call_next)

    return call


def load_middleware(references: Iterable[str]) -> tuple[Middleware, ...]:
    """Import the middleware of a worker.

    Raises:
        ConfigurationError: a reference is not ``module:function``, cannot be imported, or names no ``async def``.
    """
    found = tuple(load_function(each, "--middleware") for each in references)
    check_middleware(found, "--middleware")
    return found
