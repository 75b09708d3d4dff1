"""The text of an event, and what texts have in common."""

from __future__ import annotations

import logging
from enum import Enum
from functools import singledispatch
from typing import NamedTuple

from outbox.events import Event
from outbox.runtime.reporting.event_text.phrases import one_line


class Level(Enum):
    QUIET = "quiet"
    GOOD = "good"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


LOG_LEVELS = {
    Level.QUIET: logging.DEBUG,
    Level.GOOD: logging.INFO,
    Level.NOTICE: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
"""Those of `logging`."""


class EventText(NamedTuple):
    level: Level
    word: str
    text: str


@singledispatch
def describe(event: Event) -> EventText:
    return EventText(Level.QUIET, "event", one_line(str(event)))
