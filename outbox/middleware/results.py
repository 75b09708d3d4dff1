"""What the links of the handler stack pass to each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from outbox.job_context import Decision
    from outbox.runtime.execution.attempt import Attempt


class HandlerResult(NamedTuple):
    """How a handler returned. What it raises passes through the stack."""

    value: Any = None
    decision: Decision | None = None
    """What the job decided through its context, such as ``release``."""
    settled: bool = False
    """Nothing is left to write about this attempt: its claim is gone."""


RETURNED = HandlerResult()
"""It returned nothing, and decided nothing, as most do."""

Handler = Callable[["Attempt"], Awaitable[HandlerResult]]
"""A link, with all links inside it. One that has nothing to do afterwards is a plain function that returns what the
next one returns, and costs no coroutine."""
