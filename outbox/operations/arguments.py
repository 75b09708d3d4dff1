"""Arguments of operations: ids, limits, queues and times as callers give them, and the driver of a connection."""

from __future__ import annotations

from datetime import timedelta

from outbox.arguments import AnyId as AnyId
from outbox.arguments import check_id as check_id
from outbox.arguments import check_limit as check_limit
from outbox.client_state import current_settings
from outbox.drivers.base import Driver
from outbox.errors import InvalidOption
from outbox.open_drivers import driver_here
from outbox.options import check_queue, connection_or

Duration = float | timedelta


def driver_of(connection: str | None) -> Driver:
    return driver_here(connection_or(current_settings().connection, optional_text("connection", connection)))


def optional_queue(queue: str | None) -> str | None:
    return None if queue is None else check_queue(queue)


def optional_text(what: str, text: str | None) -> str | None:
    if text is not None and not isinstance(text, str):
        raise InvalidOption(f"{what} is a text, not {text!r}")
    if text == "":
        raise InvalidOption(f"{what} is a text that is not empty")
    return text


def seconds_of(duration: Duration | None) -> float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InvalidOption(f"a time is a number of seconds or a timedelta, not negative, not {duration!r}")
    return float(seconds)
