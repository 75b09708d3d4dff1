"""Arguments of operations: ids, limits and times as callers give them, and the driver of a connection."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from outbox.client_state import current_settings
from outbox.drivers.base import Driver
from outbox.errors import InvalidOption
from outbox.ids import JobId
from outbox.open_drivers import driver_here
from outbox.options import check_queue

MOST_PER_PAGE = 10_000
AnyId = UUID | str
Duration = float | timedelta


def driver_of(connection: str | None) -> Driver:
    return driver_here(connection or current_settings().connection)


def check_id(job_id: AnyId) -> JobId:
    if isinstance(job_id, JobId):
        return job_id
    try:
        return JobId(str(job_id) if isinstance(job_id, UUID) else job_id)
    except (ValueError, AttributeError, TypeError):
        raise InvalidOption(f"a job's id is a UUID, not {job_id!r}") from None


def check_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_PER_PAGE:
        raise InvalidOption(f"a limit is a whole number from 1 to {MOST_PER_PAGE:,}, not {limit!r}")
    return limit


def optional_queue(queue: str | None) -> str | None:
    return None if queue is None else check_queue(queue)


def seconds_of(duration: Duration | None) -> float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InvalidOption(f"a time is a number of seconds or a timedelta, not negative, not {duration!r}")
    return float(seconds)
