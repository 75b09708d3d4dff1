"""Runs a handler inside the context managers of tracing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from outbox.envelope import Headers
from outbox.instruments import Instrument, Run

if TYPE_CHECKING:
    from outbox.middleware.results import Handler, HandlerResult
    from outbox.runtime.execution.attempt import Attempt


def link(call_next: Handler, instruments: Sequence[Instrument]) -> Handler:
    """Without instruments there is no link."""
    if not instruments:
        return call_next

    async def run(attempt: Attempt) -> HandlerResult:
        about = _run(attempt)
        with ExitStack() as stack:
            for each in instruments:
                stack.enter_context(each.running(about))
            return await call_next(attempt)

    return run


def _run(attempt: Attempt) -> Run:
    assert attempt.job is not None  # noqa: S101 - for the type checker: made by the link of the context
    claim = attempt.claim
    headers = Headers.load(claim.headers)
    return Run(attempt.job, claim.queue, attempt.connection, headers, attempt.seconds_waited)
