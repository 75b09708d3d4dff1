"""Tasks that code of a job cannot cancel."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

_Mark = tuple[str]
"""Stands for one task of a job, and holds its name. Two marks with one name are two objects."""

_current: ContextVar[_Mark | None] = ContextVar("outbox_mark_of_job", default=None)
"""The mark of the job whose code runs. What the job starts inherits it: tasks, callbacks, timers and threads.

It is not the task itself. A task refers to its context, and both would wait for the garbage collector.
"""


class ProtectedTask(asyncio.Task[Any]):
    """A task of the worker: of a service, or of an attempt.

    Code of a job may cancel the task in which it runs, as `asyncio.timeout` and `asyncio.TaskGroup` do. A job that
    cancels every task that it finds cancels those of other jobs and of services, too. Such a request is reported and
    ignored.
    """

    __slots__ = ("_cancelled_by_other", "mark")

    mark: _Mark
    """Of a task that `enter_job` was called in."""

    @property
    def cancelled_by_other(self) -> bool:
        """Whether another job tried to cancel it. That job may have cancelled what this task waits for as well."""
        return hasattr(self, "_cancelled_by_other")

    def interrupt(self) -> bool:
        """Cancel it on behalf of the worker."""
        return super().cancel()

    def cancel(self, msg: Any | None = None) -> bool:
        culprit = _current.get()
        if culprit is None or culprit is getattr(self, "mark", None) or self.done():
            return super().cancel(msg)
        self._cancelled_by_other = True
        report = getattr(self.get_loop(), "report", None)
        if report is not None:
            report("cancelled tasks that are not its own", "they go on")
        return False


def enter_job(task: ProtectedTask | None) -> None:
    """Mark what the current task runs from now on as code of a job. ``task`` is the current task: the caller knows it,
    and ``asyncio.current_task()`` takes longer than the start of a task."""
    if task is not None:
        task.mark = (task.get_name(),)
        _current.set(task.mark)


def current_job() -> str | None:
    """The name of the job whose code runs."""
    mark = _current.get()
    return None if mark is None else mark[0]


def protected_task(coroutine: Any, *, name: str | None = None) -> ProtectedTask:
    """A task of the running loop, whatever task factory it has."""
    return ProtectedTask(coroutine, loop=asyncio.get_running_loop(), name=name)
