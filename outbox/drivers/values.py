"""What a driver returns: claims, leases, jobs and workers as an operator sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from outbox.events import Event
from outbox.ids import JobId
from outbox.settlement import Failure, Fence, Settlement


class Claim(NamedTuple):
    """A job held by this process until its lease ends."""

    fence: Fence
    queue: str
    name: str
    priority: int
    payload: str
    headers: str
    attempt: int
    """The number of this attempt, itself included."""
    rescued: bool
    """Whether an earlier claim ended without being settled: its worker died, or froze past the lease."""
    deadline: float
    """When the lease ends at the latest, on this process's `outbox.clock`: measured from before the claim was sent."""
    policies: int | None = None
    """Bits of `Policies`; None for a job without any, and then nothing more is asked of it."""
    ready_since: float | None = None
    """When it could first be claimed, on this process's `outbox.clock`; None where the store does not tell."""
    replaces: tuple[JobId, ...] = ()
    """Running jobs of its key whose place it has got: their rows are gone, and they are to be stopped."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Which of the held jobs got a new lease, until ``deadline`` on this process's clock, and which are lost."""

    deadline: float
    kept: frozenset[Fence]
    lost: frozenset[Fence]


@dataclass(frozen=True, slots=True)
class PolicyNews:
    """What policies did in a transaction that has been committed."""

    queues: frozenset[str] = frozenset()
    """Queues in which they made jobs claimable."""
    events: tuple[Event, ...] = ()
    """What operators must know."""

    def __add__(self, other: PolicyNews) -> PolicyNews:
        return PolicyNews(self.queues | other.queues, self.events + other.events)

    def __bool__(self) -> bool:
        return bool(self.queues or self.events)


@dataclass(frozen=True, slots=True)
class Settled:
    """``accepted`` were written; ``stale`` changed nothing, because their token is no longer the current one."""

    accepted: tuple[Settlement, ...]
    stale: tuple[Settlement, ...]
    news: PolicyNews = PolicyNews()
    """What policies made of it."""


@dataclass(frozen=True, slots=True)
class NextDue:
    """When the next job is due, and how many workers are idle."""

    due: float | None
    """Seconds until the earliest moment at which a job may be claimable, a lease that ends included: 0.0 when one may
    be now, None when there is none. Paused queues do not count."""
    idle: int = 1
    """Worker processes that have room and drain one of the queues; 1 where the store does not tell."""


@dataclass(frozen=True, slots=True)
class BlockingClaimRequest:
    """An idle worker with room asks its store for the next job that arrives."""

    lease: float
    """Seconds of the lease, counted from when the store claims a job for the worker."""
    wake: Callable[[], None]
    """Called on the worker's event loop when the store has claimed a job."""


class JobState(StrEnum):
    READY = "ready"
    DELAYED = "delayed"
    RETRYING = "retrying"
    """It waits for its next attempt after one that failed."""
    RESERVED = "reserved"
    PARKED = "parked"
    """A policy keeps it from being claimed until something else has happened."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A live job as an operator sees it. Times are aware, in UTC, from the store's clock."""

    id: JobId
    queue: str
    name: str
    priority: int
    payload: str
    headers: str
    attempts: int
    state: JobState
    available_at: datetime
    reserved_until: datetime | None
    created_at: datetime
    last_error: str | None = None
    """``type: message`` of the last attempt that failed and was to be repeated, at most 1,000 characters."""
    last_error_at: datetime | None = None
    policies: int | None = None
    """Bits of its policies; None for a job without any."""


@dataclass(frozen=True, slots=True)
class JobChange:
    """What an operator changes of a waiting job. None: that stays."""

    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    """Seconds from now until it becomes available."""
    at: datetime | None = None
    """When it becomes available, aware; a time that has passed is now."""

    @property
    def has_time(self) -> bool:
        return self.delay is not None or self.at is not None


@dataclass(frozen=True, slots=True)
class FailedJob:
    id: JobId
    connection: str
    queue: str
    name: str
    priority: int
    payload: str
    headers: str
    attempts: int
    failure: Failure
    failed_at: datetime
    policies: int | None = None
    """Bits of its policies; None for a job without any."""

    @property
    def fingerprint(self) -> str:
        """Failed jobs of one problem have the same: 16 hexadecimal digits."""
        return self.failure.fingerprint


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A completed job that is kept. Times are aware, in UTC, from the store's clock."""

    id: JobId
    queue: str
    name: str
    priority: int
    payload: str
    headers: str
    attempts: int
    result: str
    """What ``handle`` returned, as JSON."""
    progress: float | None
    """What the job said last, from 0 to 1; None where it has said nothing."""
    progress_text: str | None
    seconds: float
    """How long its handler took."""
    finished_at: datetime
    kept_until: datetime

    @property
    def value(self) -> Any:
        """What ``handle`` returned, as JSON gives it back. Of an encrypted job it is encrypted: `outbox.result`."""
        return json.loads(self.result)


class JobProgress(NamedTuple):
    """How far a live job is."""

    fraction: float
    """From 0 to 1."""
    text: str
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """``oldest`` is how many seconds the first ready job has been waiting, None when none is ready. ``delayed`` are
    those that wait for another reason than ``retrying``: for their next attempt after one that failed.

    Numbers below 10,000 are exact, as far as 12,000 jobs in all are looked at. Greater ones may be of the last count of
    all jobs, which workers make now and then.
    """

    queue: str
    ready: int
    delayed: int
    reserved: int
    failed: int
    oldest: float | None
    paused: bool
    retrying: int = 0
    parked: int = 0
    age: float | None = None
    """Seconds since the count that some of the numbers are of. None: all of them are exact, or lower bounds."""
    at_least: bool = False
    """Some of the numbers are lower bounds: there are more jobs, and no worker has counted them yet."""


class RunningJob(NamedTuple):
    """A job that a worker runs. ``seconds`` is for how long it had been running at the worker's last heartbeat."""

    id: JobId
    name: str
    queue: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch as an operator sees it. Times are aware, in UTC, from the database's clock."""

    id: JobId
    name: str
    state: str
    """``"open"``, ``"finished"``, ``"failed"`` (more members have failed than it allows) or ``"cancelled"``."""
    total: int
    failed: int
    outstanding: int
    """Members that have not ended, counted up to 1,000."""
    allow_failures: str
    parent: JobId | None
    created_at: datetime
    finished_at: datetime | None
    failed_at_least: bool = False
    """``failed`` is a lower bound: it is counted up to 10,000, and in a list of many batches up to fewer."""
    outstanding_at_least: bool = False
    """``outstanding`` is a lower bound: in a list of many batches it is counted up to fewer than 1,000."""


SILENT_SECONDS = 60.0
"""A worker that was not heard of for longer is taken for dead."""

RUNNING_JOBS_SHOWN = 200
"""How many of the jobs that it runs a worker names in its heartbeat."""


class WorkerOrder(StrEnum):
    """What an operator asks a worker process to do. It hears of it with its next heartbeat."""

    QUIET = "quiet"
    """Claim nothing; what runs goes on."""
    RESUME = "resume"
    """Claim again."""
    STOP = "stop"
    """End as after TERM: what runs has the time of grace."""


class WorkerState(StrEnum):
    WORKING = "working"
    QUIET = "quiet"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process. ``seen`` is seconds since its last heartbeat, by the store's clock."""

    id: bytes
    name: str
    host: str
    pid: int
    queues: str
    concurrency: int
    running: int
    processed: int
    failed: int
    started_at: datetime | None = None
    seen: float = 0.0
    jobs: tuple[RunningJob, ...] = ()
    """What it runs of this connection, the longest running first: at most 200."""
    state: str | None = None
    """A `WorkerState`; None of a worker of before there were any."""
    memory: int | None = None
    """Bytes that the process holds; None where its system does not say."""
    version: str | None = None
    """Of outbox."""
    ordered: str | None = None
    """A `WorkerOrder` of which the process has not heard yet."""


@dataclass(frozen=True, slots=True)
class RewrittenTexts:
    """``rewritten`` rows have other texts now; ``busy`` ones were held by another transaction, or have changed."""

    rewritten: int = 0
    busy: int = 0

    def __add__(self, other: RewrittenTexts) -> RewrittenTexts:
        return RewrittenTexts(self.rewritten + other.rewritten, self.busy + other.busy)


@dataclass(frozen=True, slots=True)
class HealthIssue:
    """Something about a store that an operator should know. When ``serious``, jobs cannot run as it is."""

    message: str
    advice: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class TableSize:
    """How large a table is, as far as the server knows without counting."""

    name: str
    rows: int | None
    """About so many; None where the store does not say."""
    data: int
    indexes: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store says of itself."""

    tables: tuple[TableSize, ...] = ()
    """The largest first."""
    oldest_transaction: float | None = None
    """Seconds for which the oldest transaction of the server has been open. None where there is none, or the user may
    not see those of others."""


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """A limit, and how much of it is left."""

    name: str
    """Of a limit of jobs of a class: the job's name."""
    key: str | None = None
    rate: str | None = None
    burst: int | None = None
    align: str | None = None
    left: int | None = None
    """How many of cost 1 may start now."""
    waiting: int = 0
    """Jobs that wait for it."""
    next_in: float | None = None
    """Seconds until the next of them may start."""
    concurrency: int | None = None
    """How many jobs of the class run at once under one key; None: as it is declared."""
    is_set: bool = False
    """Whether an operator has set it."""
    waiting_at_least: bool = False
    """``waiting`` is a lower bound: a bounded list counts no more."""
