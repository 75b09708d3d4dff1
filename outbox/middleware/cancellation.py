"""Tells a handler to stop, and gives it up where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from outbox.middleware.results import HandlerResult

if TYPE_CHECKING:
    from outbox.middleware.results import Handler
    from outbox.runtime.execution.attempt import Attempt

CANCEL_STEPS = (5.0, 2.0, 2.0)
"""Seconds that a call gets after it was first, then again told to stop, before it is given up. The first is long
because good code may have to say goodbye to a server; a second interruption would break into that."""


_ASKS_WITHIN = 1.0


def link(call_next: Handler, steps: Sequence[float], give_up: Callable[[Attempt], None]) -> Handler:
    async def run(attempt: Attempt) -> HandlerResult:
        call = HandlerCall(partial(give_up, attempt), steps, attempt.task)
        attempt.begin(call)
        try:
            result = await call_next(attempt)
        finally:
            call.end()
        return result if attempt.interruption is None else result._replace(settled=attempt.interruption.final)

    return run


class HandlerCall:
    """One call into the application's code, which can be told to stop. It is made in the task that runs it.

    ``give_up`` is called once if the code does not end although it was told to. ``task`` is the current task, for a
    caller that knows it: to ask asyncio takes longer than all the rest.
    """

    __slots__ = ("_give_up", "_interrupt", "_steps", "_task", "_timer", "in_thread", "stopping")

    def __init__(
        self,
        give_up: Callable[[], None],
        steps: Sequence[float] = CANCEL_STEPS,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.stopping = False
        self.in_thread = False
        self._give_up = give_up
        self._steps = steps
        self._task = task or asyncio.current_task()
        self._interrupt: Callable[[], object] | None = self.cancel_task
        self._timer: asyncio.TimerHandle | None = None

    def enter_thread(self, interrupt: Callable[[], object]) -> None:
        """The code runs in a thread now, which ``interrupt`` interrupts."""
        self._interrupt, self.in_thread = interrupt, True

    def leave_thread(self) -> None:
        self._interrupt, self.in_thread = self.cancel_task, False

    def cancel_task(self) -> None:
        assert self._task is not None  # noqa: S101 - for the type checker: coroutines run in tasks
        # A task of a worker lets no code of a job cancel it: see `ProtectedTask`.
        getattr(self._task, "interrupt", self._task.cancel)()

    def stop(self, *, gently: bool = False) -> None:
        """Tell the code to stop; harmless when it has ended. ``gently``: code in a thread, which can ask whether it is
        to stop, gets a second to do so before it is interrupted."""
        if self.stopping:
            return
        self.stopping = True
        if gently and self.in_thread:
            self._timer = asyncio.get_running_loop().call_later(_ASKS_WITHIN, self._push, 0)
        else:
            self._push(0)

    def end(self) -> None:
        """The code has returned. Requests to stop were answered: what the task awaits later must not look cancelled."""
        self._interrupt = None
        if self._timer is not None:
            self._timer.cancel()
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()

    def _push(self, count: int) -> None:
        if self._interrupt is None:
            return
        if count == len(self._steps):
            self._give_up()
            return
        self._interrupt()
        self._timer = asyncio.get_running_loop().call_later(self._steps[count], self._push, count + 1)
