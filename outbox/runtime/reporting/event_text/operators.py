"""Texts of what operators do."""

from __future__ import annotations

from outbox.events import BulkOperationEnded, BulkOperationStarted, Paused, Resumed
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import asked_by, job_count, one_line


@describe.register
def _(event: BulkOperationStarted) -> EventText:
    total = "more than can be counted" if event.total is None else job_count(event.total)
    text = f"{event.verb} {event.operation_id} begins, {total}{asked_by(event.by)}"
    return EventText(Level.NOTICE, "bulk", one_line(text))


@describe.register
def _(event: BulkOperationEnded) -> EventText:
    how = "was stopped" if event.stopped else "has ended"
    refused = f", {event.refused} refused" if event.refused else ""
    text = f"{event.verb} {event.operation_id} {how} after {job_count(event.done)}{refused}{asked_by(event.by)}"
    return EventText(Level.NOTICE, "bulk", one_line(text))


@describe.register
def _(event: Paused) -> EventText:
    reason = f": {event.reason}" if event.reason else ""
    until = f", until {event.until:%Y-%m-%d %H:%M:%S} UTC" if event.until is not None else ""
    return EventText(Level.NOTICE, "paused", one_line(f"the {event.kind} {event.name}{reason}{until}"))


@describe.register
def _(event: Resumed) -> EventText:
    why = ": the time of its pause is up" if event.by_itself else ""
    return EventText(Level.NOTICE, "resumed", one_line(f"the {event.kind} {event.name}{why}"))
