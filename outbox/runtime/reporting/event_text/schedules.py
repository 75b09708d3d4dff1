"""Texts of what happens to schedules."""

from __future__ import annotations

from outbox.events import ScheduleChanged, ScheduleSkipped, ScheduleTicked
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import one_line


@describe.register
def _(event: ScheduleChanged) -> EventText:
    return EventText(Level.NOTICE, "schedule", one_line(f"{event.schedule}: {event.change}"))


@describe.register
def _(event: ScheduleTicked) -> EventText:
    text = f"{event.schedule} of {event.tick:%Y-%m-%d %H:%M:%S} UTC: job {event.job_id}"
    return EventText(Level.QUIET, "tick", one_line(text))


@describe.register
def _(event: ScheduleSkipped) -> EventText:
    text = f"{event.schedule} of {event.tick:%Y-%m-%d %H:%M:%S} UTC became no job: {event.reason}"
    return EventText(Level.NOTICE, "no tick", one_line(text))
