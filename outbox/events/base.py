"""What all events have in common."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.ids import JobId


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    job_id: JobId
    name: str
    queue: str
    connection: str
    attempt: int
