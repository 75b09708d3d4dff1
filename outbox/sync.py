"""Dispatching and operating from code that is not async. Below this surface it is the same as `outbox`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, Unpack

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from outbox import batching, operations, pausing
from outbox import bulk as _bulk
from outbox import limits as _limits
from outbox import schedules as _schedules
from outbox.batch_members import Chain
from outbox.batching import Batch, BatchId, serialize_addition, serialize_batch, stage_now
from outbox.chains import serialize_chain
from outbox.client_state import ClientPart, ClientState, current_client
from outbox.dispatch import AnySession, serialize_all, stage_all, store_all, store_together, with_options
from outbox.errors import SessionUnusable
from outbox.ids import JobId
from outbox.inbox import inbox
from outbox.job import Job
from outbox.open_drivers import OpenDrivers
from outbox.operations.arguments import AnyId
from outbox.operations.changes import cancel_in
from outbox.options import DispatchOptions
from outbox.policies.batch import AllowedFailures
from outbox.policies.inbox import MessageId
from outbox.resources import Resources

__all__ = [
    "add_to_batch",
    "batch",
    "batches",
    "bulk",
    "cancel",
    "cancel_batch",
    "change",
    "clear",
    "counts",
    "depths",
    "disconnect",
    "dispatch",
    "dispatch_batch",
    "dispatch_chain",
    "dispatch_many",
    "dispatch_now",
    "failed_groups",
    "failed_jobs",
    "find",
    "finished_jobs",
    "forget",
    "forget_all",
    "inbox",
    "jobs",
    "limits",
    "metrics",
    "pause",
    "pauses",
    "progress",
    "receive",
    "reschedule",
    "result",
    "resume",
    "retry",
    "retry_all",
    "retry_batch",
    "schedules",
    "workers",
]

T = TypeVar("T")
P = ParamSpec("P")

_MOST_LOOPS = 8


@with_options
def dispatch(job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]) -> JobId:
    """`outbox.dispatch`, for code with a sync ``Session`` or none."""
    return dispatch_many((job,), session=session, **options)[0]


@with_options
def dispatch_many(
    jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
) -> list[JobId]:
    """`outbox.dispatch_many`, for code with a sync ``Session`` or none.

    Without a session it blocks until the jobs are stored. They are taken from ``jobs`` and written in the caller's
    thread, over connections that are kept for the next call from any thread.
    """
    # Here, not on the loop: a generator of jobs may use what belongs to its thread, or dispatch some itself.
    serialized = serialize_all(jobs, options, takes_keys=True)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_all(serialized))
    return serialized.ids


@with_options
def dispatch_chain(
    jobs: Iterable[Job],
    *,
    catch: Job | None = None,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> JobId:
    """`outbox.dispatch_chain`, for code with a sync ``Session`` or none."""
    serialized = serialize_chain(jobs, catch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_all(serialized))
    return serialized.ids[0]


@with_options
def dispatch_batch(
    jobs: Iterable[Job | Chain | Batch],
    *,
    name: str = "",
    then: Job | None = None,
    catch: Job | None = None,
    finally_: Job | None = None,
    allow_failures: AllowedFailures = False,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> BatchId:
    """`outbox.dispatch_batch`, for code with a sync ``Session`` or none."""
    batch = Batch(jobs, name=name, then=then, catch=catch, finally_=finally_, allow_failures=allow_failures)
    batch_id, serialized = serialize_batch(batch, options)
    if session is not None:
        stage_all(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_together(serialized))
    return batch_id


@with_options
def add_to_batch(
    batch_id: BatchId,
    jobs: Iterable[Job | Chain],
    *,
    session: AnySession | None = None,
    **options: Unpack[DispatchOptions],
) -> list[JobId]:
    """`outbox.add_to_batch`, for code with a sync ``Session`` or none."""
    serialized = serialize_addition(batch_id, jobs, options)
    if session is not None:
        stage_now(session, serialized)
    else:
        serialized.client.part(SyncLoops).run(lambda: store_together(serialized))
    return serialized.ids


@with_options
def receive(
    session: AnySession, message_id: MessageId, job: Job, *, source: str = "default", **options: Unpack[DispatchOptions]
) -> JobId | None:
    """`outbox.receive`, for code with a sync ``Session``."""
    serialized = serialize_all([job], options, takes_keys=True)
    with inbox(session, message_id, source=source) as fresh:
        if not fresh:
            return None
        stage_all(session, serialized)
    return serialized.ids[0]


@with_options
def dispatch_now(
    job: Job, *, resources: Mapping[Any, Any] | Resources | None = None, **options: Unpack[DispatchOptions]
) -> Any:
    """`outbox.dispatch_now`, for code that is not async: it blocks until the attempt has ended."""
    # An application that only dispatches needs nothing of what a worker is made of.
    from outbox import inline

    loops = current_client().part(SyncLoops)
    return loops.run(lambda: inline.dispatch_now(job, resources=resources, **options))


def _blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same function for code that is not async: it blocks until the answer is there."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return current_client().part(SyncLoops).run_in_thread(function(*args, **kwargs))

    # It says "coroutine function" of the one that is wrapped.
    del call.__wrapped__
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _here_in_session(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """`_blocking`, but with a ``session`` in the caller's thread, to which that belongs."""
    blocking = _blocking(function)

    @functools.wraps(blocking)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        session = kwargs.get("session")
        if isinstance(session, AsyncSession | async_scoped_session):
            raise SessionUnusable("outbox.sync takes a Session, not an AsyncSession: that is for outbox.schedules")
        return blocking(*args, **kwargs) if session is None else _step(function(*args, **kwargs))

    return call


def _step(work: Coroutine[Any, Any, T]) -> T:
    """The result of what awaits nothing: with a sync session, all is done in place."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("it has awaited something")


batch = _blocking(batching.batch)
batches = _blocking(batching.batches)
cancel_batch = _blocking(batching.cancel_batch)
retry_batch = _blocking(batching.retry_batch)
change = _blocking(operations.change)
clear = _blocking(operations.clear)
counts = _blocking(operations.counts)
metrics = _blocking(operations.metrics)
depths = _blocking(operations.depths)
failed_groups = _blocking(operations.failed_groups)
failed_jobs = _blocking(operations.failed_jobs)
find = _blocking(operations.find)
finished_jobs = _blocking(operations.finished_jobs)
progress = _blocking(operations.progress)
result = _blocking(operations.result)
forget = _blocking(operations.forget)
forget_all = _blocking(operations.forget_all)
jobs = _blocking(operations.jobs)
pause = _blocking(pausing.pause)
pauses = _blocking(pausing.pauses)
reschedule = _blocking(operations.reschedule)
resume = _blocking(pausing.resume)
retry = _blocking(operations.retry)
retry_all = _blocking(operations.retry_all)
workers = _blocking(operations.workers)


def cancel(
    job_id: AnyId,
    *,
    session: AnySession | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> bool:
    """`outbox.cancel`, for code with a sync ``Session`` or none."""
    if session is not None:
        return cancel_in(session, job_id, connection, by)
    return current_client().part(SyncLoops).run_in_thread(operations.cancel(job_id, by=by, connection=connection))


class bulk:  # noqa: N801 - it stands for the module `outbox.bulk`
    """`outbox.bulk`, for code that is not async."""

    preview = staticmethod(_blocking(_bulk.preview))
    start = staticmethod(_blocking(_bulk.start))
    progress = staticmethod(_blocking(_bulk.progress))
    operations = staticmethod(_blocking(_bulk.operations))
    stop = staticmethod(_blocking(_bulk.stop))


class limits:  # noqa: N801 - it stands for the module `outbox.limits`
    """`outbox.limits`, for code that is not async."""

    take = staticmethod(_blocking(_limits.take))


class schedules:  # noqa: N801 - it stands for the module `outbox.schedules`
    """`outbox.schedules`, for code with a sync ``Session`` or none."""

    add = staticmethod(_here_in_session(_schedules.add))
    remove = staticmethod(_here_in_session(_schedules.remove))
    pause = staticmethod(_here_in_session(_schedules.pause))
    resume = staticmethod(_here_in_session(_schedules.resume))


def disconnect() -> None:
    """Close what dispatches without a session have opened. They open it again when needed."""
    current_client().part(SyncLoops).disconnect()


class _CallersLoop(asyncio.SelectorEventLoop):
    outbox_may_block = True

    def __init__(self) -> None:
        # With poll(2), which keeps nothing in the kernel: what a forked child closes stays open for its parent.
        super().__init__(selectors.PollSelector())


class SyncLoops(ClientPart):
    """Event loops that are run in the thread of whoever dispatches, one caller at a time, and kept with their
    connections. Nothing changes threads, which would take longer than all else that a dispatch does here.

    A thread in which another loop is running cannot run one of these, and gives its work to a loop in a daemon thread.
    So do threads that are more than `_MOST_LOOPS` at once: they share that loop's connections.
    """

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._lock = threading.Lock()
        self._idle: list[asyncio.AbstractEventLoop] = []
        self._count = 0
        self._shared: asyncio.AbstractEventLoop | None = None
        self._shared_thread: threading.Thread | None = None

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop = None if _is_in_a_loop() else self._take()
        if loop is None:
            return self.run_in_thread(work())
        try:
            return _run_to_its_end(loop, work())
        finally:
            with self._lock:
                self._idle.append(loop)

    def run_in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        """On the loop that never stands still, for work that may leave something to be done in the background."""
        return asyncio.run_coroutine_threadsafe(work, self._shared_loop()).result()

    def _take(self) -> asyncio.AbstractEventLoop | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._count >= _MOST_LOOPS:
                return None
            self._count += 1
        return _CallersLoop()

    def _shared_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._shared is None:
                self._shared = asyncio.new_event_loop()
                self._shared_thread = threading.Thread(
                    target=_run_until_stopped, args=(self._shared,), name="outbox-sync", daemon=True
                )
                self._shared_thread.start()
            return self._shared

    def disconnect(self) -> None:
        """Close the connections of all loops. Those of loops that are in use stay."""
        if _is_in_a_loop():
            # A loop cannot be run in this thread.
            thread = threading.Thread(target=self._close_idle)
            thread.start()
            thread.join()
        else:
            self._close_idle()
        if self._shared is not None:
            asyncio.run_coroutine_threadsafe(self.client.part(OpenDrivers).close(), self._shared).result()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
            self._count -= len(idle)
        for loop in idle:
            loop.run_until_complete(self.client.part(OpenDrivers).close())
            loop.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self.disconnect()
        with self._lock:
            shared, self._shared = self._shared, None
            thread, self._shared_thread = self._shared_thread, None
        if shared is not None and thread is not None:
            shared.call_soon_threadsafe(shared.stop)
            thread.join()

    def close_at_exit(self) -> None:
        """A thread that is still dispatching keeps its loop."""
        with suppress(Exception):
            self._close_idle()

    def after_fork(self) -> None:
        """The thread exists only in the parent, and so do the other ends of the connections."""
        _inherited.extend(self._idle)
        self.__init__(self.client)  # type: ignore[misc]


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_to_its_end(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Also where a signal's handler raises meanwhile: a connection is not left in the middle of a statement."""
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            with suppress(BaseException):
                loop.run_until_complete(task)
        raise


_inherited: list[asyncio.AbstractEventLoop] = []
"""Loops of a parent process, kept so that they are not collected: they are not this process's to close."""
