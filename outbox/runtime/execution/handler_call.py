"""One call into the application's code, which can be told to stop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from outbox.runtime.execution.protected_task import ProtectedTask
from outbox.runtime.execution.threads import Threads

CANCEL_STEPS = (5.0, 2.0, 2.0)
"""Seconds that a call gets after it was first, then again told to stop, before it is given up. The first is long
because good code may have to say goodbye to a server; a second interruption would break into that."""


class HandlerCall:
    """Runs a coroutine function in the current task, and a plain function in a thread. ``task`` is the current task,
    for a caller who knows it: asking asyncio takes longer than all the rest.

    ``give_up`` is called once if it does not end although it was told to; ``run`` then still waits until it does.
    """

    __slots__ = ("_give_up", "_interrupt", "_patience", "_task", "_threads", "_timer", "in_thread", "stopping")

    def __init__(
        self,
        threads: Threads,
        give_up: Callable[[], None],
        patience: Sequence[float] = CANCEL_STEPS,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.stopping = False
        self.in_thread = False
        self._threads = threads
        self._give_up = give_up
        self._patience = patience
        self._task = task
        self._interrupt: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        Raises:
            BaseException: whatever the function raises; told to stop, a coroutine function usually raises
                `asyncio.CancelledError` and a plain one `outbox.runtime.execution.threads.Interrupted`.
        """
        task = self._task or asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: coroutines run in tasks
        try:
            if _is_coroutine_function(getattr(function, "__func__", function)):
                self._interrupt = _canceller(task)
                return await function(*arguments)
            result = await self._run_in_thread(function, *arguments)
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                raise TypeError(f"{function.__qualname__} is a generator: nothing in it has run; remove its `yield`")
            if inspect.isawaitable(result):
                self._interrupt = _canceller(task)
                return await result
            return result
        finally:
            self._interrupt = None
            if self._timer is not None:
                self._timer.cancel()
            # The requests were answered here; what the task awaits later must not look cancelled.
            while task.cancelling():
                task.uncancel()

    async def _run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        call = self._threads.call(function, *arguments)
        self._interrupt, self.in_thread = call.interrupt, True
        try:
            value, error = await call.returned
        finally:
            self.in_thread = False
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        """Tell the function to stop; harmless when it has ended."""
        if not self.stopping:
            self.stopping = True
            self._push(0)

    def _push(self, count: int) -> None:
        if self._interrupt is None:
            return
        if count == len(self._patience):
            self._give_up()
            return
        self._interrupt()
        self._timer = asyncio.get_running_loop().call_later(self._patience[count], self._push, count + 1)


def _canceller(task: asyncio.Task[Any]) -> Callable[[], object]:
    return task.interrupt if isinstance(task, ProtectedTask) else task.cancel


# Of functions, of which an application has a few; asking takes longer than calling.
_is_coroutine_function = lru_cache(maxsize=1_000)(inspect.iscoroutinefunction)
