"""Texts of stores and sources of wake-ups."""

from __future__ import annotations

from outbox.events import ConnectionDown, ConnectionUp, WakeupsHeard, WakeupsUnheard
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import duration, one_line


@describe.register
def _(event: ConnectionDown) -> EventText:
    return EventText(Level.ERROR, "down", f"{event.connection}: {one_line(event.error)}; trying until it is back")


@describe.register
def _(event: ConnectionUp) -> EventText:
    return EventText(Level.GOOD, "up", f"{event.connection}: back after {duration(event.seconds)}")


@describe.register
def _(event: WakeupsUnheard) -> EventText:
    text = f"{event.connection}: {event.source} is not heard: {one_line(event.error)}; polling until it is"
    return EventText(Level.WARNING, "wake-ups", text)


@describe.register
def _(event: WakeupsHeard) -> EventText:
    return EventText(Level.GOOD, "wake-ups", f"{event.connection}: {event.source} is heard again")
