"""The event loops in which code that is not async has its work done."""

from __future__ import annotations

import asyncio
import selectors
import threading
from asyncio import _set_running_loop
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from outbox.client_state import ClientPart, ClientState, current_client
from outbox.open_drivers import OpenDrivers

T = TypeVar("T")

MOST_LOOPS = 8
"""Loops of callers' threads that are kept at once."""


def disconnect() -> None:
    """Close what dispatches without a session have opened. They open it again when needed."""
    current_client().part(SyncLoops).disconnect()


class _CallersLoop(asyncio.SelectorEventLoop):
    outbox_may_block = True

    def __init__(self) -> None:
        # With poll(2), which keeps nothing in the kernel: what a forked child closes stays open for its parent.
        super().__init__(selectors.PollSelector())

    def create_unscheduled_task(self, work: Coroutine[Any, Any, T]) -> tuple[asyncio.Task[T], Callable[[], object]]:
        """A task, and its first step, which is the caller's to take."""
        steps: list[Callable[[], object]] = []

        def keep(step: Callable[[], object], *, context: Context) -> None:
            steps.append(partial(context.run, step))

        self.call_soon = keep  # type: ignore[method-assign, assignment]
        try:
            task = self.create_task(work)
        finally:
            del self.call_soon
        return task, steps[0]

    def take(self, step: Callable[[], object]) -> None:
        """Take a step without a run of this loop, which only work that waits needs."""
        _set_running_loop(self)
        try:
            step()
        finally:
            _set_running_loop(None)


class SyncLoops(ClientPart):
    """Event loops that run in the caller's thread, for one caller at a time, and are kept with their connections. A
    change of threads would take longer than all else that a dispatch does here.

    A thread in which another loop is running cannot run one of these, and gives its work to a loop in a daemon thread.
    So do threads beyond `MOST_LOOPS` at once: they share that loop's connections.
    """

    def __init__(self, client: ClientState | None = None) -> None:
        super().__init__(client)
        self._lock = threading.Lock()
        self._idle: list[_CallersLoop] = []
        self._count = 0
        self._shared: asyncio.AbstractEventLoop | None = None
        self._shared_thread: threading.Thread | None = None

    @property
    def idle(self) -> int:
        """How many loops are kept that no caller uses now: at most `MOST_LOOPS`."""
        return len(self._idle)

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

    def _take(self) -> _CallersLoop | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._count >= MOST_LOOPS:
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


def _run_to_its_end(loop: _CallersLoop, work: Coroutine[Any, Any, T]) -> T:
    """Also where a signal's handler raises meanwhile: a connection is not left in the middle of a statement.

    Work that waits for nothing ends with its first step: that of a dispatch to SQLite.
    """
    # Tasks begin eagerly since Python 3.12 only, and in a loop that runs.
    task, first_step = loop.create_unscheduled_task(work)
    try:
        loop.take(first_step)
        return task.result() if task.done() else loop.run_until_complete(task)
    except BaseException:
        with suppress(BaseException):
            if not task.done():
                task.cancel()
                loop.run_until_complete(task)
            # asyncio logs an exception that no code has asked for.
            task.exception()
        raise


_inherited: list[asyncio.AbstractEventLoop] = []
"""Loops of a parent process, kept so that they are not collected: they are not this process's to close."""
