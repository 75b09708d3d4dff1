"""`Driver`: the bundle of all parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol, TypeVar

from outbox.drivers.audit import AuditLog
from outbox.drivers.base.claims import AgingClaims, BlockingClaims, ShortJobClaims
from outbox.drivers.base.encrypted_texts import EncryptedTexts
from outbox.drivers.base.failed_jobs import FailedJobStore, FailedPages
from outbox.drivers.base.finished_jobs import FinishedJobStore
from outbox.drivers.base.inbox import MessageStore
from outbox.drivers.base.jobs import JobStore
from outbox.drivers.base.policies import LimitStore, PolicyStore
from outbox.drivers.base.queues import QueueControl
from outbox.drivers.base.relay import RelaySource, RelayTarget
from outbox.drivers.base.workers import WorkerRegistry
from outbox.drivers.breakers import BreakerStore
from outbox.drivers.bulk import OperationStore
from outbox.drivers.metrics import MetricStore
from outbox.drivers.pauses import PauseStore
from outbox.drivers.schedules import ScheduleStore
from outbox.drivers.values import HealthIssue, StoreFacts

T = TypeVar("T")


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
        """Await ``question``, which only reads, for an operator. A store with transactions reads in one that cannot
        write, and ends a statement that takes long. It reads from the replica of the connection if there is one."""
        return await question()

    async def health_issues(self) -> list[HealthIssue]:
        """What in the store's settings or tables weakens the guarantees."""

    async def close(self) -> None:
        """Give back every resource; harmless when repeated."""
