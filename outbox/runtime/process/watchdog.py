"""Notices handlers that keep the event loop from running, and ends the process where nothing else can."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable

from outbox import clock
from outbox.events import Events, LoopBlocked, WorkerKilled
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.process.exit_codes import ExitCode
from outbox.runtime.process.stop_request import StopRequest
from outbox.runtime.service import BackgroundLoop

BLOCKED_AFTER = 1.0
"""Seconds after which a loop that did not run is reported."""

REPEAT_EVERY = 30.0

HARD_GRACE = 10.0
"""Seconds for which a blocked loop is tolerated beyond a job's timeout, or beyond the time of grace of a worker that
stops."""

_TICK = 0.25


class Watchdog(BackgroundLoop):
    """Runs in a thread of its own, and asks the loop of the worker to answer.

    A coroutine that blocks cannot be cancelled, timed out or interrupted: it never gives the loop a turn. Its lease is
    renewed all the same (it is alive), so when its timeout has passed by far, ``kill`` ends the process. The attempt
    was counted when it was claimed: such a job ends in the failed table after ``max_tries``.
    """

    def __init__(
        self,
        *,
        worker: str,
        loop: asyncio.AbstractEventLoop,
        thread: int,
        attempts: Callable[[], list[Attempt]],
        stop: StopRequest,
        grace: float,
        timeout: float,
        events: Events,
        kill: Callable[[int], object],
        hard_grace: float = HARD_GRACE,
        on_answer: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._worker = worker
        self._loop = loop
        self._thread = thread
        self._attempts = attempts
        self._stop = stop
        self._grace = grace
        self._timeout = timeout
        self._events = events
        self._kill = kill
        self._hard_grace = hard_grace
        self._on_answer = on_answer
        self._answered = True
        self._blocked = 0.0
        self._reported = 0.0

    async def run(self) -> None:
        last = clock.now()
        while not await self.pause(_TICK):
            # A process that was frozen did not have a blocked loop: no tick counts for more than it should have taken.
            elapsed, last = min(clock.now() - last, 2 * _TICK), clock.now()
            attempts = [attempt for attempt in self._attempts() if attempt.blocks_loop]
            if not self._answered:
                self._blocked += elapsed
                self._judge(attempts)
            else:
                self._ask()

    def _ask(self) -> None:
        self._answered, self._blocked, self._reported = False, 0.0, 0.0
        self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """On the loop of the worker."""
        self._answered = True
        self._on_answer()

    def _judge(self, attempts: list[Attempt]) -> None:
        if self._blocked >= self._hard_grace and (reason := self._past_bearing(attempts)):
            self._events.emit(WorkerKilled(self._worker, ExitCode.BLOCKED, reason))
            self._kill(ExitCode.BLOCKED)
        due = BLOCKED_AFTER if not self._reported else self._reported + REPEAT_EVERY
        if self._blocked > due:
            self._reported = self._blocked
            suspects = [attempt for attempt in attempts if attempt.started is not None] or attempts
            running = tuple(sorted(f"{attempt.claim.name} {attempt.fence.job_id}" for attempt in suspects))
            self._events.emit(LoopBlocked(self._blocked, running, self._stack()))

    def _past_bearing(self, attempts: list[Attempt]) -> str | None:
        now = clock.now()
        for attempt in attempts:
            started, timeout = attempt.started, attempt.timeout
            if started is not None and timeout > 0 and now > started + timeout + self._hard_grace:
                return (
                    f"the event loop has been blocked for {self._blocked:.0f} s, and {attempt.claim.name} "
                    f"{attempt.fence.job_id} is {now - started - timeout:.0f} s past its timeout"
                )
        handlers = any(attempt.started is not None for attempt in attempts)
        if self._timeout > 0 and not handlers and self._blocked > self._timeout + self._hard_grace:
            return (
                f"the event loop has been blocked for {self._blocked:.0f} s, and not by a handler: by a validator, a "
                "failed() hook, or a task that a job left behind"
            )
        urgent = self._stop.urgent_since
        if urgent is not None and now > urgent + self._grace + self._hard_grace:
            return f"it should stop, and the event loop has been blocked for {self._blocked:.0f} s"
        return None

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the documented way to see another thread
        return "".join(traceback.format_stack(frame)) if frame is not None else ""
