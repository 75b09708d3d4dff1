"""Texts of what a supervisor does."""

from __future__ import annotations

from outbox.events import ProcessEnded, ProcessStarted, SourcesChanged
from outbox.runtime.process.signals import signal_name
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import duration


@describe.register
def _(event: ProcessStarted) -> EventText:
    return EventText(Level.NOTICE, "process", f"{event.index} started (pid {event.pid})")


@describe.register
def _(event: ProcessEnded) -> EventText:
    how = f"exit code {event.exit_code}" if event.exit_code >= 0 else signal_name(-event.exit_code)
    if event.restart_in is None:
        return EventText(Level.NOTICE, "process", f"{event.index} ended (pid {event.pid}, {how})")
    again = f"in {duration(event.restart_in)}" if event.restart_in else "at once"
    return EventText(Level.WARNING, "process", f"{event.index} ended (pid {event.pid}, {how}); starts again {again}")


@describe.register
def _(event: SourcesChanged) -> EventText:
    return EventText(Level.NOTICE, "reload", ", ".join(event.paths))
