"""What operators do: bulk operations and pauses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from outbox.events.base import Event
from outbox.ids import JobId


@dataclass(frozen=True, slots=True)
class BulkOperationStarted(Event):
    """A worker has begun with a bulk operation, which ``by`` asked for. ``total`` jobs matched when it was made; None:
    there were too many to count."""

    operation_id: JobId
    verb: str
    by: str | None
    total: int | None


@dataclass(frozen=True, slots=True)
class BulkOperationEnded(Event):
    """A bulk operation has been worked off, or was ``stopped``: ``done`` jobs were changed, and ``refused`` failed jobs
    stay."""

    operation_id: JobId
    verb: str
    by: str | None
    done: int
    refused: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """Claims from ``connection`` leave something out from now on. ``kind`` is ``"connection"``, ``"queue"``, ``"job"``
    or ``"key"``, and ``name`` which one. ``until`` is None where it lasts until it is resumed."""

    connection: str
    kind: str
    name: str
    reason: str | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A pause is over. ``by_itself``: its time was up; a worker says so within a minute or so."""

    connection: str
    kind: str
    name: str
    by_itself: bool
