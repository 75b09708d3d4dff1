"""Calls ``failed(error)`` of jobs after their last attempt, and ``cancelled()`` of jobs that were cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from outbox import registry
from outbox.envelope import Headers
from outbox.errors import JobError
from outbox.events import Events, HookFailed
from outbox.job import Job
from outbox.middleware.cancellation import CANCEL_STEPS, HandlerCall
from outbox.middleware.context import load_job
from outbox.middleware.thread_call import Threads, run
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.protected_task import ProtectedTask, enter_job, protected_task
from outbox.runtime.execution.retry_policy import RetryPolicy
from outbox.runtime.slots import Slots
from outbox.settings import WorkerOptions


class FailedHooks:
    """The hook is called once the store has accepted the job's failure, never before.

    A zombie whose settlement is stale therefore calls nothing, and the hook runs at most once. The price: a worker that
    dies between the two leaves a failed job whose hook never ran. What must not be missed belongs into a job.

    A hook occupies a slot, so that it delays the next claim rather than piling up. It has the job's timeout. What it
    raises is reported, and changes nothing.
    """

    def __init__(
        self,
        options: WorkerOptions,
        slots: Slots,
        threads: Threads,
        events: Events,
        *,
        cancel_steps: Sequence[float] = CANCEL_STEPS,
    ) -> None:
        self._default = RetryPolicy.default(options)
        self._slots = slots
        self._threads = threads
        self._events = events
        self._cancel_steps = cancel_steps
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[HandlerCall] = set()

    def call(self, attempt: Attempt, name: str = "failed") -> None:
        """Call this hook of a job that has ended, if it has one, in a task of its own."""
        try:
            kind = registry.resolve(attempt.claim.name)
        except JobError:
            return
        if callable(getattr(kind, name, None)):
            self._slots.occupy()
            task = protected_task(self._run(attempt, kind, name), name=f"{attempt.claim.name}.{name}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def interrupt(self) -> None:
        """Tell every hook that runs to stop."""
        for call in tuple(self._calls):
            call.stop()

    async def _run(self, attempt: Attempt, kind: type[Job], name: str) -> None:
        stuck = False
        task = cast("ProtectedTask", asyncio.current_task())
        enter_job(task)

        def give_up() -> None:
            nonlocal stuck
            stuck = True
            self._report(attempt, TimeoutError(f"{name}() was told to stop, and does not"))
            self._slots.mark_stuck()

        call = HandlerCall(give_up, self._cancel_steps, task)
        self._calls.add(call)
        timer: asyncio.TimerHandle | None = None
        try:
            policy = self._default.of(kind, Headers.load(attempt.claim.headers))
            # Not loaded yet where attempts were used up before this one.
            job = attempt.job or load_job(kind, attempt, policy.max_tries)
            if policy.timeout > 0:
                timer = asyncio.get_running_loop().call_later(policy.timeout, call.stop)
            arguments = (attempt.error,) if name == "failed" else ()
            await run(self._threads, call, getattr(job, name), *arguments)
        except BaseException as error:  # noqa: BLE001 - a hook cannot end the worker, not even with SystemExit
            if not stuck:
                self._report(attempt, error)
        finally:
            call.end()
            self._calls.discard(call)
            if timer is not None:
                timer.cancel()
            if stuck:
                self._slots.unmark_stuck()

    def _report(self, attempt: Attempt, error: BaseException) -> None:
        self._events.emit(attempt.event(HookFailed, attempt.failure(error)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
