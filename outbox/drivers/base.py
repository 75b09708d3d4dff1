"""The contract of a driver, in the verbs of jobs. ``tests/conformance/`` says what each verb owes.

Every verb is plural. Seconds are floats, and durations only: the store's own clock decides what is due. A verb that
cannot reach its store, after bounded retries of transient errors, raises `BackendUnavailable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from outbox.drivers.audit import AuditLog
from outbox.drivers.breakers import BreakerStore
from outbox.drivers.bulk import OperationStore
from outbox.drivers.filters import (
    ANY_FAILED,
    FailedFilter,
    FailedGroup,
    FailedPage,
    FinishedPage,
    FinishedPlace,
    JobFilter,
    JobPage,
    JobPlace,
)
from outbox.drivers.metrics import MetricStore
from outbox.drivers.pauses import PauseStore
from outbox.drivers.schedules import ScheduleStore
from outbox.drivers.values import (
    BatchStatus,
    BlockingClaimRequest,
    Claim,
    FailedJob,
    FinishedJob,
    HealthIssue,
    JobChange,
    JobProgress,
    Lease,
    LimitStatus,
    NextDue,
    PolicyNews,
    QueueCounts,
    RewrittenTexts,
    Settled,
    StoredJob,
    StoreFacts,
    WorkerOrder,
    WorkerStatus,
)
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.policies.rate_limits import Terms
from outbox.policies.results import Progress
from outbox.settlement import Fence, MoveRates, Outcome, Settlement

T = TypeVar("T")


class JobWriter(Protocol):
    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        """Store jobs in a transaction of their own: all, or none; so many that the store cannot take them at once, in
        several. An id that is there already is left alone."""


class JobClaims(Protocol):
    """What a worker needs."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        """Claim up to ``limit`` jobs for ``lease`` seconds: earlier queues first, then by priority and by the time at
        which they became available. Each call writes one new token into its jobs and counts an attempt. Paused queues
        give nothing."""

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        """Renew the leases of jobs still held under these tokens."""

    async def missing(self, job_ids: Sequence[JobId]) -> frozenset[JobId]:
        """Those of these claimed jobs that are no longer there: they have ended, or an operator has removed them."""

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Write the ends of attempts, in one transaction. A settlement whose token is no longer current changes
        nothing."""

    async def fail_unreadable(self) -> int:
        """Move what no claim can take or read to the failed jobs, with a reason; return how many. What a claim meets is
        moved by the claim: this is for the rest, and is called now and then."""

    async def next_due(self, queues: Sequence[str]) -> NextDue:
        """When there may be something to claim: one statement where the store has statements, taking no lock."""


class ShortJobClaims(Protocol):
    """A store that holds short jobs in a cheaper way, although it is in the way of other claims while it lasts."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        """As `JobClaims.claim`, for a caller that settles or extends all of these jobs within about a second."""


class AgingClaims(Protocol):
    """A store that can claim from the lowest priority whose jobs have waited for long."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float, waited: float) -> list[Claim]:
        """As `JobClaims.claim`, for one priority of one queue: the lowest whose first job has been claimable for more
        than ``waited`` seconds. Nothing where there is none."""


class BlockingClaims(Protocol):
    """A store that claims the next job for an idle worker as soon as it arrives."""

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest) -> NextDue:
        """As `JobClaims.next_due`, and make a claim pending. The next claim of the same queues returns its job, and so
        does `cancel`: one of the two has to follow."""

    async def cancel(self) -> list[Claim]:
        """Cancel the pending claim; return the jobs that it already claimed."""


Outcomes = Callable[[Collection[JobId]], Awaitable[Mapping[JobId, Outcome]]]


class RelaySource(Protocol):
    """What a database owes to a relay, which moves jobs from it to another store."""

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        """When these live jobs were written, by the store's clock. Jobs that have ended are left out."""

    async def end_relayed(self, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
        """Remove the rows of jobs that have ended in the other store, held or not; return those that there were.
        ``outcomes`` is asked how those with policies have ended."""

    async def has_unrelayed(self, queue: str) -> bool:
        """Whether the other store may lack a job of this queue: no relay has put it back yet, or one holds it."""


class PolicyStore(Protocol):
    """A store that decides about jobs with policies."""

    on_news: Callable[[PolicyNews], None]
    """Called when policies have made jobs claimable, or report something, through another verb than `settle`. It must
    be quick, and raises nothing."""

    async def insert_unique(self, envelopes: Sequence[Envelope]) -> Mapping[JobId, JobId]:
        """Store jobs as `JobWriter.insert` does, but those unique ones that meet a job of their key. Returns them, each
        with the id of the job that it met.

        Raises:
            DuplicateJob: one of them must not meet another. Nothing was stored.
        """

    async def upkeep(self) -> float | None:
        """Repair what crashes have left in the rows of policies, and do what they do by time. Seconds until it is to be
        called again; None at the usual interval."""

    async def follow_commit(self, accepted: Sequence[Settlement]) -> PolicyNews:
        """Do what policies do after a commit, for settlements that a transaction of the application has committed."""

    async def explain(self, job: StoredJob) -> list[str]:
        """Lines that tell an operator what its policies do with a live job."""

    async def batch(self, batch_id: JobId) -> BatchStatus | None:
        """How far a batch is; None where it is not known."""

    async def batches(self, limit: int) -> list[BatchStatus]:
        """The latest batches, the newest first."""

    async def batch_members(self, batch_id: JobId, *, failed: bool = False, after: JobId | None = None) -> list[JobId]:
        """Up to 1,000 members that have not ended, or that have failed, by id; ``after`` goes on."""

    async def mark_cancelled(self, batch_id: JobId) -> bool:
        """Cancel an open batch, whose members stay; False where there is none."""

    async def end_batch(self, batch_id: JobId) -> None:
        """End the batch if it has no member left."""

    async def blocked_keys(self, key: str | None = None) -> dict[JobId, str]:
        """The failed jobs that block ordering keys, or the key of this name, with the names of their keys."""

    async def skip_failed(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Let the keys that these failed jobs block go on without them; return those that did block one."""


class LimitStore(Protocol):
    """A store that keeps limits."""

    async def list(self) -> Sequence[LimitStatus]:
        """Limits that an operator has set or that jobs have used, by name and key."""

    async def set(self, name: str, terms: Terms | None = None, *, concurrency: int | None = None) -> None:
        """Change a rate for all workers, or how many jobs of a class run at once."""

    async def reset(self, name: str) -> bool:
        """Have a limit be again as the jobs declare it; False where none was set."""

    async def terms(self, name: str) -> Terms | None:
        """The rate of this name that an operator has set, or that jobs have used without a key."""

    async def take(self, terms: Terms, cost: int, key: str | None) -> float:
        """Take ``cost`` from a rate: 0.0, or, where nothing was taken, seconds until it would be. What an operator has
        set goes before ``terms``."""

    async def move(self, refused: Sequence[MoveRates]) -> None:
        """Have the rates of jobs that a service has refused admit nothing for so many seconds."""


class RelayTarget(Protocol):
    """What a store owes to a relay, which moves jobs to it from a database."""

    on_relayed_end: Callable[[], None]
    """Called when relayed jobs have ended through this driver, in the thread that settled them."""
    on_refused: Callable[[Sequence[MoveRates]], None]
    """Called with the rates of jobs that a service has refused, in the thread that settled them."""

    async def insert_once(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        """Store each job once, however often it is sent; return those that were stored before and have ended since.
        Jobs that the store has lost are stored again."""

    async def take_ended(self) -> dict[JobId, str]:
        """Take up to 1,000 relayed jobs of each queue that have ended, with their queues. Each is returned once."""

    async def outcomes(self, queues: Mapping[JobId, str]) -> dict[JobId, Outcome]:
        """How relayed jobs with policies have ended, by their queues: completed, failed or cancelled by themselves.
        Others are left out. `forget_accepted` forgets it."""

    async def forget_accepted(self, queues: Mapping[JobId, str]) -> None:
        """These jobs are not sent again."""


class EncryptedTexts(Protocol):
    """A store that can hold encrypted jobs."""

    async def rewrite(self, rewrite: Callable[[str], str]) -> RewrittenTexts:
        """Give every text that holds something encrypted to ``rewrite``, and store what that returns in its place, in
        short transactions. It waits for no other transaction: a text that another one holds is left."""


class FinishedJobStore(Protocol):
    """A store that keeps finished jobs, and how far live ones are."""

    async def get(self, job_id: JobId) -> FinishedJob | None: ...

    async def latest(self, queue: str | None = None, name: str | None = None, limit: int = 100) -> list[FinishedJob]:
        """Finished jobs (of a queue) (of a name), the latest first."""

    async def page(
        self, queue: str | None = None, name: str | None = None, limit: int = 100, after: FinishedPlace | None = None
    ) -> FinishedPage:
        """A page of finished jobs, the latest first, beginning after a place. It examines a bounded number of rows."""

    async def progress(self, job_id: JobId) -> JobProgress | None:
        """How far a live job is, by its last report."""

    async def report(self, reports: Sequence[tuple[Fence, Progress]]) -> None:
        """Write how far jobs are that are still held under these tokens."""

    async def prune(self) -> int:
        """Forget finished jobs whose time is over; return how many."""


class MessageStore(Protocol):
    """A store that keeps which messages were received."""

    async def prune(self) -> int:
        """Forget the messages whose time is over; return how many."""


class WorkerRegistry(Protocol):
    """Which worker processes there are."""

    async def heartbeat(self, worker: WorkerStatus) -> WorkerOrder | None:
        """Write the worker's row, with the store's time as its heartbeat. Return what was ordered since the last one:
        each order once."""

    async def order(self, worker_id: bytes, order: WorkerOrder) -> bool:
        """Ask a worker process to do something; False where there is no such worker. A later order replaces one of
        which it has not heard yet."""

    async def deregister(self, worker_id: bytes) -> None:
        """Remove the worker's row."""

    async def all(self) -> list[WorkerStatus]:
        """Every worker process that has a row, longest running first."""

    async def forget(self, unseen_for: float) -> int:
        """Remove rows of processes not heard of for so many seconds; their jobs need no help, leases end by
        themselves."""


class JobInspection(Protocol):
    """What an operator needs of live jobs."""

    async def get(self, job_id: JobId) -> StoredJob | None: ...

    async def find(self, digits: str) -> list[JobId]:
        """Ids of live jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20."""

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        """Live jobs in the order in which they would be claimed."""

    async def page(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        """Live jobs by queue, then in the order in which they would be claimed, beginning after a place. It looks at
        a bounded number of them, however many there are."""

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Remove live jobs, whatever their state; return those that there were. `missing` and the
        next renewal tell the worker of a running job, which then stops the handler."""

    async def change(self, job_id: JobId, wanted: JobChange) -> str | None:
        """Change when, where or how urgently a live job runs that no worker holds: all that is wanted, or nothing.
        Return its queue; None where there is no such job. A job that is due joins the end of those that are due.

        Raises:
            JobNotWaiting: a worker holds it, a policy decides its time, or the store cannot do it.
        """


class QueueControl(Protocol):
    """What an operator needs of queues."""

    async def counts(self) -> list[QueueCounts]:
        """One row per queue that has live or failed jobs, or is paused; by name."""

    async def clear(self, queue: str) -> int:
        """Remove every job of a queue that no worker holds; return how many."""

    async def pause(self, queue: str) -> bool:
        """Stop claims from a queue; False when it was paused already."""

    async def resume(self, queue: str) -> bool:
        """Allow claims again; False when it was not paused."""


class FailedJobStore(Protocol):
    """What an operator needs of failed jobs."""

    async def get(self, job_id: JobId) -> FailedJob | None: ...

    async def find(self, digits: str) -> list[JobId]:
        """Ids of failed jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20."""

    async def page(
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

    async def groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        """Failed jobs (of a queue) counted by name, type of exception and fingerprint, the largest groups first. It
        counts a bounded number of jobs: of greater groups, `FailedGroup.at_least` is true."""

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        """For each group, how many of its jobs failed in each of the last 24 hours, the oldest first. Great numbers
        are cut."""

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


class FailedPages(Protocol):
    """A store that reads pages of failed jobs at a bounded cost."""

    async def page(
        self, queue: str | None, limit: int, before: JobId | None, *, matching: FailedFilter = ANY_FAILED
    ) -> FailedPage:
        """As `FailedJobStore.page`. It looks at a bounded number of failed jobs, however many match.

        Raises:
            JobNotFound: ``before`` is no longer there.
        """


class JobStore(JobWriter, JobClaims, JobInspection, Protocol):
    """Live jobs: stored, claimed, settled, inspected."""


class Driver(Protocol):
    """One store, as a bundle of parts. A part that a store does not have is None."""

    name: str
    """The connection's name in the settings."""

    jobs: JobStore
    failed: FailedJobStore
    failed_pages: FailedPages | None = None
    queues: QueueControl
    pauses: PauseStore
    workers: WorkerRegistry
    short_jobs: ShortJobClaims | None = None
    aging: AgingClaims | None = None
    blocking_claims: BlockingClaims | None = None
    relay_source: RelaySource | None = None
    relay_target: RelayTarget | None = None
    policies: PolicyStore | None = None
    breakers: BreakerStore | None = None
    session_url: str | None = None
    """Where jobs can have sessions, as SQLAlchemy takes it, with its password. None where the store is no database."""
    schedules: ScheduleStore | None = None
    limits: LimitStore | None = None
    encrypted_texts: EncryptedTexts | None = None
    inbox: MessageStore | None = None
    metrics: MetricStore | None = None
    finished: FinishedJobStore | None = None
    operations: OperationStore | None = None
    audit: AuditLog | None = None

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

    async def facts(self) -> StoreFacts:
        """What the store says of its size and of open transactions."""
        return StoreFacts()

    async def read_only(self, question: Callable[[], Awaitable[T]]) -> T:
        """Await ``question``, which only reads, for an operator. Where the store has such transactions, it reads in one
        that cannot write, from the replica of the connection if it has one, and no statement takes long."""
        return await question()

    async def health_issues(self) -> list[HealthIssue]:
        """What in the store's settings or tables weakens the guarantees."""

    async def close(self) -> None:
        """Give back every resource; harmless when repeated."""
