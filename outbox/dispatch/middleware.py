"""Middleware of dispatches: functions of ``(job, call_next)`` that see each job before it is serialised."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from outbox.errors import ConfigurationError, InvalidJob
from outbox.job import Job
from outbox.registry import load_function

_SETTING = "dispatch_middleware"

CallNextDispatch = Callable[[Job], Job]
"""Goes on with a job, and returns the one that is dispatched."""

DispatchMiddleware = Callable[[Any, CallNextDispatch], Job]
"""``def (job, call_next)``: what it raises reaches the caller of the dispatch, and nothing is written."""


def through_middleware(jobs: Sequence[Job], middleware: tuple[Any, ...]) -> list[Job]:
    """What is dispatched in place of ``jobs``.

    Raises:
        InvalidJob: a middleware does not return a job.
        ConfigurationError: one of the settings names no function of ``(job, call_next)``.
        Exception: whatever a middleware raises.
    """
    chain = _chain(middleware)
    return [chain(job) for job in jobs]


@lru_cache(maxsize=100)
def _chain(middleware: tuple[Any, ...]) -> CallNextDispatch:
    chain: CallNextDispatch = _unchanged
    for each in reversed([_checked(one) for one in middleware]):
        chain = _around(each, chain)
    return chain


def _unchanged(job: Job) -> Job:
    return job


def _checked(middleware: Any) -> Any:
    found = load_function(middleware, _SETTING) if isinstance(middleware, str) else middleware
    if not callable(found):
        raise ConfigurationError(f"{_SETTING} lists functions of (job, call_next), not {found!r}")
    try:
        inspect.signature(found).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(f"{_SETTING}: {_name(found)} is called with (job, call_next): {error}") from None
    return found


def _around(middleware: Any, call_next: CallNextDispatch) -> CallNextDispatch:
    async def awaited_next(job: Job) -> Job:
        return call_next(job)

    is_coroutine = inspect.iscoroutinefunction(middleware)

    def call(job: Job) -> Job:
        returned = _finished(middleware, middleware(job, awaited_next)) if is_coroutine else middleware(job, call_next)
        if not isinstance(returned, Job):
            raise InvalidJob(
                f"the dispatch middleware {_name(middleware)} returned {returned!r} for {job.name}: return what "
                "call_next(job) returns, or raise to refuse the job"
            )
        return returned

    return call


def _finished(middleware: Any, coroutine: Any) -> Any:
    """A dispatch in a session awaits nothing, and neither can its middleware."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise ConfigurationError(
        f"the dispatch middleware {_name(middleware)} waits for something: a dispatch awaits nothing but call_next"
    )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
