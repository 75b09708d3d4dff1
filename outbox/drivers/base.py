"""The contract of a driver, in the verbs of jobs. ``tests/conformance/`` says what each verb owes.

Every verb is plural. Seconds are floats, and durations only: the store's own clock decides what is due. A verb that
cannot reach its store, after bounded retries of transient errors, raises `BackendUnavailable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.envelope import Envelope
from outbox.events import Event
from outbox.ids import JobId
from outbox.settlement import Failure, Fence, Outcome, Settlement


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
    """What an idle worker has to look forward to."""

    due: float | None
    """Seconds until the earliest moment at which a job may be claimable, a lease that ends included: 0.0 when one may
    be now, None when there is none. Paused queues do not count."""
    idle: int = 1
    """Worker processes that have room and drain one of the queues; 1 where the store does not tell."""


@dataclass(frozen=True, slots=True)
class BlockingClaimRequest:
    """A worker with room, in which nothing runs, that waits for a job."""

    lease: float
    """Seconds for which it holds what is taken for it, counted from then."""
    wake: Callable[[], None]
    """To be called on its event loop when a job has been taken for it."""


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


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """``oldest`` is how many seconds the first ready job has been waiting, None when none is ready. ``delayed`` are
    those that wait for another reason than ``retrying``: for their next attempt after one that failed."""

    queue: str
    ready: int
    delayed: int
    reserved: int
    failed: int
    oldest: float | None
    paused: bool
    retrying: int = 0
    parked: int = 0


class RunningJob(NamedTuple):
    """A job that a worker runs. ``seconds`` is for how long it had been running at the worker's last heartbeat."""

    id: JobId
    name: str
    queue: str
    seconds: float


RUNNING_JOBS_SHOWN = 200
"""How many of the jobs that it runs a worker names in its heartbeat."""


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


@dataclass(frozen=True, slots=True)
class HealthIssue:
    """Something about a store that an operator should know. When ``serious``, jobs cannot run as it is."""

    message: str
    advice: str
    serious: bool = False


class JobWriter(Protocol):
    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        """Store jobs in a transaction of their own: all, or none; so many that the store cannot take them at once, in
        several. An id that is there already is left alone."""


class JobClaims(Protocol):
    """What a worker needs."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float, *, short_jobs: bool = False) -> list[Claim]:
        """Take up to ``limit`` claimable jobs, those of earlier queues first, by priority and then by when they became
        available. Each call writes one new token into what it takes and counts an attempt. Paused queues give nothing.

        With ``short_jobs``, the caller settles or extends all of them within about a second. A store may then hold them
        in a way that is cheaper, although it is in the way of other claims for as long as it lasts.
        """

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        """Renew the leases of jobs still held under these tokens."""

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Write the ends of attempts, in one transaction. A settlement whose token is no longer current changes
        nothing."""

    async def fail_unreadable(self) -> int:
        """Move what no claim can take or read to the failed jobs, with a reason; return how many. What a claim meets is
        moved by the claim: this is for the rest, and is called now and then."""

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest | None = None) -> NextDue:
        """When there may be something to claim: one statement where the store has statements, taking no lock.

        With ``waiting``, a store that is able to may take the next job for this driver as soon as it arrives. The next
        claim, of the same queues, returns that job, and so does `cancel_blocking_claim`: one of them has to follow.
        """

    async def cancel_blocking_claim(self) -> list[Claim]:
        """Take nothing more for whom `next_due` was told to be waiting; return what has been taken."""


Outcomes = Callable[[Collection[JobId]], Awaitable[Mapping[JobId, Outcome]]]


class RelaySource(JobClaims, Protocol):
    """What a database owes to a relay, which moves jobs from it to another store."""

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        """When these live jobs were written, by the store's clock. Those that are no more are left out."""

    async def now(self) -> datetime:
        """The store's clock."""

    on_policy_news: Callable[[PolicyNews], None]
    """As that of `PolicyStore`."""

    async def end_relayed(self, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
        """Remove the rows of jobs that have ended in the other store, held or not; return those that there were.
        ``outcomes`` is asked how those with policies have ended."""

    async def has_unrelayed(self, queue: str) -> bool:
        """Whether the other store may lack a job of this queue: nobody has put it back yet, or somebody holds it."""

    async def check(self) -> None:
        """As that of `Driver`."""


@runtime_checkable
class PolicyStore(Protocol):
    """A store that decides about jobs with policies."""

    on_policy_news: Callable[[PolicyNews], None]
    """Called when policies have made jobs claimable, or report something, through another verb than `settle`. It must
    be quick, and raises nothing."""

    async def policy_upkeep(self) -> float | None:
        """Repair what crashes have left in the rows of policies, and do what they do by time. Seconds until it is to be
        called again; None at the usual interval."""

    async def explain(self, job: StoredJob) -> list[str]:
        """Lines that tell an operator what its policies do with a live job."""


@runtime_checkable
class RelayTarget(Protocol):
    """What a store owes to whom a relay moves jobs from a database."""

    async def insert_once(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        """Store jobs, each of them once, however often it is sent; return those that were stored before and have ended
        since. What the store has lost, it stores again."""

    on_relayed_end: Callable[[], None]
    """Called when relayed jobs have ended through this driver, in the thread that settled them."""

    async def take_ended(self) -> dict[JobId, str]:
        """Take up to 1,000 relayed jobs of each queue that have ended, with their queues. Each is returned once."""

    async def outcomes(self, queues: Mapping[JobId, str]) -> dict[JobId, Outcome]:
        """How relayed jobs with policies have ended, by their queues: completed, failed or cancelled by themselves.
        Others are left out. `forget_accepted` forgets it."""

    async def forget_accepted(self, queues: Mapping[JobId, str]) -> None:
        """These are not sent again."""

    async def check(self) -> None:
        """As that of `Driver`."""

    async def close(self) -> None:
        """Give back every resource; harmless when repeated."""


class WorkerRegistry(Protocol):
    """Which worker processes there are."""

    async def heartbeat(self, worker: WorkerStatus) -> None:
        """Write the worker's row, with the store's time as its heartbeat."""

    async def deregister(self, worker_id: bytes) -> None:
        """Remove the worker's row."""

    async def workers(self) -> list[WorkerStatus]:
        """Every worker process that has a row, longest running first."""

    async def forget_workers(self, unseen_for: float) -> int:
        """Remove rows of processes not heard of for so many seconds; their jobs need no help, leases end by
        themselves."""


class JobInspection(Protocol):
    """What an operator needs of live jobs."""

    async def get(self, job_id: JobId) -> StoredJob | None: ...

    async def find(self, digits: str) -> list[JobId]:
        """Ids of live jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20."""

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        """Live jobs in the order in which they would be claimed."""

    async def page_of_jobs(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        """Live jobs by queue, then in the order in which they would be claimed, beginning after a place. It looks at
        a bounded number of them, however many there are."""

    async def counts(self) -> list[QueueCounts]:
        """One row per queue that has live or failed jobs, or is paused; by name."""

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Remove live jobs, whatever their state; return those that there were. The worker of a running one notices
        when
        it next renews its lease, and cancels the handler."""

    async def clear(self, queue: str) -> int:
        """Remove every job of a queue that no worker holds; return how many."""

    async def pause(self, queue: str) -> bool:
        """Stop claims from a queue; False when it was paused already."""

    async def resume(self, queue: str) -> bool:
        """Allow claims again; False when it was not paused."""


class FailedJobStore(Protocol):
    """What an operator needs of failed jobs."""

    async def get_failed(self, job_id: JobId) -> FailedJob | None: ...

    async def find_failed(self, digits: str) -> list[JobId]:
        """Ids of failed jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20."""

    async def list_failed(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        """Failed jobs, the latest failure first; ``before`` continues after the last id of an earlier page.

        Raises:
            JobNotFound: ``before`` is no longer there.
        """

    async def failed_groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        """Failed jobs (of a queue) counted by name and type of exception, the largest groups first."""

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Put failed jobs back under the same id with no attempts counted, each in the transaction that removes its
        failed row; return those that there were. Where a live job has the id already, it stays as it is.

        Raises:
            InvalidPayload: a payload is broken JSON that the queue's table cannot hold; nothing is changed.
        """

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        """The same for every job (of a queue) that has failed by now; those with a broken payload stay. Return how many
        were put back."""

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        """Failed jobs (of a queue) that `retry` refuses."""

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Remove failed jobs for good; return those that there were."""

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """Remove all failed jobs (of a queue) (that failed more than ``older_than`` seconds ago); return how many."""


class Driver(JobWriter, JobClaims, WorkerRegistry, JobInspection, FailedJobStore, Protocol):
    """All of it, and a life cycle."""

    name: str
    """The connection's name in the settings."""

    @property
    def description(self) -> str:
        """Where it stores, for banners and logs: a URL without its password, and the server's version once known."""

    def drop(self) -> None:
        """Close every connection without its event loop, which is closed. Never raises; harmless when repeated."""

    async def check(self) -> None:
        """Reach the server.

        Raises:
            UnsupportedServer: it cannot give the guarantees.
            TablesMissing: the tables are not there.
            BackendUnavailable: it does not answer.
        """

    async def now(self) -> datetime:
        """The store's clock."""

    async def health_issues(self) -> list[HealthIssue]:
        """What in the store's settings or tables weakens the guarantees."""

    async def close(self) -> None:
        """Give back every resource; harmless when repeated."""
