"""Calls the code of a job: coroutine functions in the current task, plain functions in threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.middleware.forked_handler import end_if_forked, forks
from outbox.middleware.results import RETURNED, HandlerResult

if TYPE_CHECKING:
    from outbox.job import Job
    from outbox.middleware.cancellation import HandlerCall
    from outbox.middleware.results import Handler
    from outbox.runtime.execution.attempt import Attempt


def handler(kind: type[Job], threads: Threads) -> Handler:
    """The innermost link: calls ``handle``."""

    async def call_coroutine(attempt: Attempt) -> HandlerResult:
        job: Any = attempt.job
        before = forks()
        try:
            value = await (job.handle(**attempt.arguments) if attempt.arguments else job.handle())
        except BaseException as error:
            end_if_forked(before, error)
            raise
        end_if_forked(before)
        decision = job.context.decision
        return RETURNED if value is None and decision is None else HandlerResult(value, decision)

    async def call_plain(attempt: Attempt) -> HandlerResult:
        job: Any = attempt.job
        assert attempt.call is not None  # noqa: S101 - for the type checker: begun
        handle = partial(job.handle, **attempt.arguments) if attempt.arguments else job.handle
        return HandlerResult(await run_in_thread(threads, attempt.call, handle), job.context.decision)

    return call_coroutine if inspect.iscoroutinefunction(kind.handle) else call_plain  # type: ignore[attr-defined]


async def run(threads: Threads, call: HandlerCall, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function of either kind, as ``call``.

    Raises:
        BaseException: whatever the function raises; told to stop, a coroutine function usually raises
            `asyncio.CancelledError` and a plain one `Interrupted`.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    return await run_in_thread(threads, call, function, *arguments)


async def run_in_thread(threads: Threads, call: HandlerCall, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function in a thread, as ``call``."""
    thread = threads.call(function, *arguments)
    call.enter_thread(thread.interrupt)
    try:
        value, error = await thread.returned
    finally:
        call.leave_thread()
    if error is not None:
        raise error
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"{function.__qualname__} is a generator: nothing in it has run; remove its `yield`")
    return await value if inspect.isawaitable(value) else value


class Interrupted(BaseException):
    """Raised inside a plain function, in its thread, to make it stop."""


class Returned(NamedTuple):
    """What a plain function returned or raised. A future cannot carry a StopIteration as its exception; a value can."""

    value: Any
    error: BaseException | None


class ThreadCall:
    """One function on its way through a thread."""

    __slots__ = ("_arguments", "_context", "_function", "_interrupted", "_lock", "_loop", "_thread", "returned")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._loop = asyncio.get_running_loop()
        self.returned: asyncio.Future[Returned] = self._loop.create_future()
        self._function = function
        self._arguments = arguments
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Raise `Interrupted` in the thread, before its next bytecode.

        CPython's ``PyThreadState_SetAsyncExc`` cannot end a call into C that does not return: a long sleep, a read
        without a timeout, a computation in an extension. The exception comes when that call has returned.
        """
        with self._lock:
            self._interrupted = True
            if self._thread is not None:
                _raise_in(self._thread)

    def run(self) -> None:
        """In the thread."""
        value, error = None, None
        before = forks()
        try:
            self._enter()
            value = self._context.run(self._function, *self._arguments)
        except BaseException as raised:  # noqa: BLE001 - whatever it was belongs to the job
            error = raised
        end_if_forked(before, error)
        while True:
            try:
                self._leave()
                break
            except Interrupted as late:
                error = error or late
        # A closed loop: the worker did not wait for this thread.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, Returned(value, error))

    def _enter(self) -> None:
        with self._lock:
            if self._interrupted:
                raise Interrupted
            self._thread = threading.get_ident()

    def _leave(self) -> None:
        """From here on the thread belongs to the next call: nothing may be raised in it any more."""
        with self._lock:
            self._thread = None
            if self._interrupted:
                _take_back()

    def _resolve(self, returned: Returned) -> None:
        if not self.returned.done():
            self.returned.set_result(returned)


def _raise_in(thread: int) -> None:
    # Only here: half a MiB that handlers which are coroutines need nothing of.
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Interrupted))


def _take_back() -> None:
    """Have an `Interrupted` of this thread raised here, if one has yet to be.

    CPython can also forget it. But before 3.13 the process then looks for it for ever. With a profiler or a tracer,
    that is a loop that does not end.
    """
    with suppress(Interrupted):
        _raise_in(threading.get_ident())
        while True:
            pass


class Threads:
    """As many threads as functions run at once, kept for the next ones. How many that may be is for `Slots` to say.

    They are daemons: a function that never returns cannot keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[ThreadCall | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._stopped = False

    async def start(self) -> None:
        """Threads start when they are needed."""

    async def stop(self) -> None:
        """Let idle threads end, and busy ones after what they are doing. Does not wait for them."""
        if not self._stopped:
            self._stopped = True
            for _ in range(self._count):
                self._calls.put(None)

    def call(self, function: Callable[..., Any], *arguments: Any) -> ThreadCall:
        """Run ``function`` in a thread, with the caller's context variables."""
        call = ThreadCall(function, arguments)
        self._calls.put(call)
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"outbox-job-{self._count}", daemon=True).start()
        return call

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            # A thread that keeps a call alive while it waits keeps its job and its arguments alive, too.
            del call
            self._idle.release()
