"""A shipped middleware: jobs that are not wanted any more are removed before they run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from outbox.errors import ConfigurationError

if TYPE_CHECKING:
    from outbox.job import CallNext, Middleware


def skip_if(condition: Callable[[Any], bool | Awaitable[bool]]) -> Middleware:
    """A middleware of jobs: where ``condition(job)`` is true, the job is removed and ``handle`` is not called. It is
    neither completed nor failed, as after ``self.context.delete()``.

    ``condition`` is a function or a coroutine function. What it raises is the failure of the attempt.

    Raises:
        ConfigurationError: ``condition`` is no function.
    """
    if not callable(condition):
        raise ConfigurationError(f"skip_if takes a function of the job, not {condition!r}")

    async def skip(job: Any, call_next: CallNext) -> Any:
        found = condition(job)
        if inspect.isawaitable(found):
            found = await found
        if not found:
            return await call_next(job)
        job.context.delete()
        return None

    return skip
