"""What happens to schedules: they change, and each tick becomes a job or none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from outbox.events.base import Event
from outbox.ids import JobId


@dataclass(frozen=True, slots=True)
class ScheduleChanged(Event):
    """`outbox.schedules` was called. ``change`` is ``"added"``, ``"changed"``, ``"removed"``, ``"paused"`` or
    ``"resumed"``. ``in_session``: it holds if the session's transaction commits."""

    schedule: str
    change: str
    in_session: bool


@dataclass(frozen=True, slots=True)
class ScheduleTicked(Event):
    """A tick of a schedule became a job. ``tick`` is the planned time, in UTC."""

    schedule: str
    tick: datetime
    job_id: JobId


@dataclass(frozen=True, slots=True)
class ScheduleSkipped(Event):
    """A tick of a schedule became no job: it was missed, or the job of an earlier one is not finished."""

    schedule: str
    tick: datetime
    reason: str
