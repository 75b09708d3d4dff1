"""Dispatching and operating from code that is not async. Below this surface it is the same as `outbox`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar, Unpack

from outbox import operating
from outbox.connections import disconnect as disconnect_async
from outbox.dispatch import AnySession, DispatchOptions, seal_all, stage_all, store_all
from outbox.ids import JobId
from outbox.job import Job

__all__ = [
    "cancel",
    "clear",
    "counts",
    "disconnect",
    "dispatch",
    "dispatch_many",
    "failed_groups",
    "failed_jobs",
    "find",
    "forget",
    "forget_all",
    "jobs",
    "pause",
    "resume",
    "retry",
    "retry_all",
    "workers",
]

T = TypeVar("T")
P = ParamSpec("P")


def dispatch(job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]) -> JobId:
    """`outbox.dispatch`, for code with a sync ``Session`` or none."""
    return dispatch_many((job,), session=session, **options)[0]


def dispatch_many(
    jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
) -> list[JobId]:
    """`outbox.dispatch_many`, for code with a sync ``Session`` or none.

    Without a session it blocks until the jobs are stored. They are taken from ``jobs`` in the caller's thread, and
    written by an event loop in a thread of outbox's own, started when first needed and kept, so that its connections
    are kept as well.
    """
    # Here, not on the loop: a generator of jobs may use what belongs to its thread, or dispatch some itself.
    sealed = seal_all(jobs, options)
    if session is not None:
        stage_all(session, sealed)
    else:
        _loop.run(store_all(sealed))
    return sealed.ids


def _blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same function for code that is not async: it blocks until the answer is there."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return _loop.run(function(*args, **kwargs))

    # It says "coroutine function" of the one that is wrapped.
    del call.__wrapped__
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


clear = _blocking(operating.clear)
counts = _blocking(operating.counts)
failed_groups = _blocking(operating.failed_groups)
failed_jobs = _blocking(operating.failed_jobs)
find = _blocking(operating.find)
forget = _blocking(operating.forget)
forget_all = _blocking(operating.forget_all)
jobs = _blocking(operating.jobs)
pause = _blocking(operating.pause)
resume = _blocking(operating.resume)
retry = _blocking(operating.retry)
retry_all = _blocking(operating.retry_all)
workers = _blocking(operating.workers)


def cancel(job_id: JobId | str, *, session: AnySession | None = None, connection: str | None = None) -> bool:
    """`outbox.cancel`, for code with a sync ``Session`` or none."""
    if session is not None:
        return operating.cancel_in(session, job_id, connection)
    return _loop.run(operating.cancel(job_id, connection=connection))


def disconnect() -> None:
    """Close what dispatches without a session have opened. They open it again when needed."""
    if _loop.started:
        _loop.run(disconnect_async())


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._start_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def started(self) -> bool:
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._start_lock:
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="outbox-sync", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def forget(self) -> None:
        """After a fork: the thread exists only in the parent."""
        self.__init__()  # type: ignore[misc]


_loop = _LoopThread()
os.register_at_fork(after_in_child=_loop.forget)
