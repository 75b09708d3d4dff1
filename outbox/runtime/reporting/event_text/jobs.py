"""Texts of what happens to jobs."""

from __future__ import annotations

from outbox.events import (
    HookFailed,
    JobCancelled,
    JobDispatched,
    JobGivenBack,
    JobOverdue,
    JobSettled,
    JobSkipped,
    JobStarted,
    LeaseLost,
    ResourceFailed,
)
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import attempt_name, duration, failure_text, one_line
from outbox.settlement import CLAIMED_AGAIN, Outcome

_OUTCOMES = {
    Outcome.COMPLETED: (Level.GOOD, "done"),
    Outcome.RETRIED: (Level.WARNING, "retry"),
    Outcome.FAILED: (Level.ERROR, "failed"),
    Outcome.RELEASED: (Level.NOTICE, "released"),
    Outcome.SNOOZED: (Level.NOTICE, "put back"),
    Outcome.DEFERRED: (Level.QUIET, "deferred"),
    Outcome.CANCELLED: (Level.NOTICE, "removed"),
}


@describe.register
def _(event: JobDispatched) -> EventText:
    return EventText(Level.QUIET, "dispatched", f"{event.name} {event.job_id} to {event.queue} of {event.connection}")


@describe.register
def _(event: JobStarted) -> EventText:
    rescued = ": an earlier attempt ended with its worker" if event.rescued else ""
    return EventText(Level.QUIET, "running", f"{attempt_name(event)}{rescued}")


@describe.register
def _(event: JobSettled) -> EventText:
    level, word = _OUTCOMES[event.outcome]
    text = f"{attempt_name(event)}, {duration(event.seconds)}"
    if event.outcome in CLAIMED_AGAIN:
        text += f"; again in {duration(event.delay)}" if event.delay else "; again at once"
    if event.failure is not None:
        text += f": {failure_text(event.failure)}"
    return EventText(level, word, text)


@describe.register
def _(event: JobSkipped) -> EventText:
    return EventText(Level.NOTICE, "skipped", f"{attempt_name(event)}: {event.reason}; it was removed")


@describe.register
def _(event: JobCancelled) -> EventText:
    return EventText(
        Level.NOTICE, "cancelled", f"{attempt_name(event)}: removed by an operator; what it does now changes nothing"
    )


@describe.register
def _(event: JobGivenBack) -> EventText:
    text = f"{attempt_name(event)}: {one_line(event.reason)}; another worker may run it"
    return EventText(Level.WARNING, "given back", text)


@describe.register
def _(event: JobOverdue) -> EventText:
    return EventText(
        Level.ERROR,
        "overdue",
        f"{attempt_name(event)}: does not stop although {event.reason}; its slot stays taken until it does",
    )


@describe.register
def _(event: LeaseLost) -> EventText:
    return EventText(Level.WARNING, "lost", f"{attempt_name(event)}: {event.reason}; what it does now changes nothing")


@describe.register
def _(event: HookFailed) -> EventText:
    text = f"{attempt_name(event)}: failed() itself failed: {failure_text(event.failure)}"
    return EventText(Level.WARNING, "hook", text)


@describe.register
def _(event: ResourceFailed) -> EventText:
    text = f"{attempt_name(event)}: its resources were not closed: {failure_text(event.failure)}"
    return EventText(Level.WARNING, "resource", text)
