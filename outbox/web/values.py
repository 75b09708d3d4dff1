"""Values of readings: what pages and the digests of topics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from outbox.drivers.audit import AuditEntry
from outbox.drivers.bulk import BulkOperation
from outbox.drivers.filters import FinishedPage, JobPage
from outbox.drivers.schedules import StoredSchedule
from outbox.drivers.values import (
    SILENT_SECONDS,
    FinishedJob,
    QueueCounts,
    RunningJob,
    StoredJob,
    WorkerStatus,
)
from outbox.errors import OutboxError
from outbox.ids import JobId

T = TypeVar("T")

_MISSED_AFTER = timedelta(seconds=60)
"""A tick that is later than this has been missed: no worker looks for schedules."""
_SHOWN_TICKS = 5


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a connection, and the workers that drain it."""

    connection: str
    counts: QueueCounts
    workers: tuple[WorkerStatus, ...] = ()

    @property
    def running(self) -> int:
        return sum(job.queue == self.counts.queue for worker in self.workers for job in worker.jobs)


@dataclass(frozen=True, slots=True)
class Worker:
    connection: str
    status: WorkerStatus

    @property
    def is_silent(self) -> bool:
        return self.status.seen > SILENT_SECONDS


@dataclass(frozen=True, slots=True)
class Alert:
    """``place`` is the page that tells more, as a path below the dashboard."""

    connection: str
    message: str
    advice: str
    place: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    ready: int
    running: int
    delayed: int
    parked: int
    failed: int
    failed_last_hour: int
    oldest: float | None
    at_least: bool
    """The numbers are lower bounds: no worker has counted all jobs yet."""
    workers: int
    slots: int
    queues: tuple[Queue, ...]
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A live job with what is known of it. ``run`` is None while no worker has reported it."""

    connection: str
    job: StoredJob
    now: datetime
    worker: WorkerStatus | None
    run: RunningJob | None
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LivePage:
    page: JobPage
    now: datetime
    reasons: dict[JobId, str]
    """Why parked jobs are parked."""


@dataclass(frozen=True, slots=True)
class FinishedJobs:
    """A page of finished jobs that are kept; ``is_kept`` is whether the connection keeps any: a database does."""

    page: FinishedPage
    now: datetime
    is_kept: bool


@dataclass(frozen=True, slots=True)
class KeptJob:
    """A finished job that is kept."""

    connection: str
    job: FinishedJob
    now: datetime


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """Bulk operations and entries of the audit log, each with the id after which the next page begins."""

    now: datetime
    is_kept: bool
    """Whether the connection keeps them: a database does."""
    operations: tuple[BulkOperation, ...] = ()
    next_operation: JobId | None = None
    entries: tuple[AuditEntry, ...] = ()
    next_entry: JobId | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    connection: str
    stored: StoredSchedule
    state: str
    """``active``, ``paused``, ``vanished`` (no code here declares it any more) or ``over``."""
    ticks: tuple[datetime, ...] = ()

    @property
    def is_missed(self) -> bool:
        due = self.stored.next_at
        return self.state == "active" and due is not None and self.stored.now - due > _MISSED_AFTER


@dataclass(frozen=True, slots=True)
class Blocked:
    connection: str
    key: str
    job_id: JobId


@dataclass(frozen=True, slots=True)
class BlockedKeys:
    """``next`` has the connections with failed jobs that were not looked at, each with the place where they begin."""

    keys: tuple[Blocked, ...]
    next: Mapping[str, JobId]


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the connections answered, with the errors of those that did not."""

    found: T
    errors: dict[str, OutboxError]


def state_of(schedule: StoredSchedule, known: frozenset[str] | None) -> str:
    if schedule.paused_at is not None:
        return "paused"
    if schedule.declaration is not None and known is not None and schedule.name not in known:
        return "vanished"
    return "active" if schedule.next_at is not None else "over"


def next_ticks(schedule: StoredSchedule) -> tuple[datetime, ...]:
    """Up to five ticks from the next one on."""
    ticks: list[datetime] = []
    tick = schedule.next_at
    while tick is not None and len(ticks) < _SHOWN_TICKS:
        ticks.append(tick)
        tick = schedule.definition.timetable.after(tick)
    return tuple(ticks)
