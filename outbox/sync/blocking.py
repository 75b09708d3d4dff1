"""Async functions made into functions that block."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from outbox.client_state import current_client
from outbox.errors import SessionUnusable
from outbox.sync.loops import SyncLoops

T = TypeVar("T")
P = ParamSpec("P")


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same function for code that is not async: it blocks until the answer is there."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return current_client().part(SyncLoops).run_in_thread(function(*args, **kwargs))

    # It says "coroutine function" of the one that is wrapped.
    del call.__wrapped__
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def in_session_or_blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """As `blocking`. With a ``session``, the function runs in the caller's thread, to which the session belongs."""
    blocks = blocking(function)

    @functools.wraps(blocks)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        session = kwargs.get("session")
        if isinstance(session, AsyncSession | async_scoped_session):
            raise SessionUnusable("outbox.sync takes a Session, not an AsyncSession: that is for outbox.schedules")
        return blocks(*args, **kwargs) if session is None else _step(function(*args, **kwargs))

    return call


def _step(work: Coroutine[Any, Any, T]) -> T:
    """The result of what awaits nothing: with a sync session, all is done in place."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("it has awaited something")
