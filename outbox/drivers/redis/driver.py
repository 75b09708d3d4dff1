"""Redis as a driver: each verb of the contract, and the module that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from outbox.drivers.base import (
    BlockingClaimRequest,
    Claim,
    FailedJob,
    HealthIssue,
    Lease,
    NextDue,
    QueueCounts,
    Settled,
    StoredJob,
    WorkerStatus,
)
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.drivers.redis.connection.store import Store, open_store
from outbox.drivers.redis.jobs import claim as claim_module
from outbox.drivers.redis.jobs import insert as insert_module
from outbox.drivers.redis.jobs import relay_target
from outbox.drivers.redis.jobs import settle as settle_module
from outbox.drivers.redis.jobs.blocking_claim import BlockingClaim
from outbox.drivers.redis.jobs.cross_slot import CrossSlotJobs
from outbox.drivers.redis.jobs.job_locator import JobLocator
from outbox.drivers.redis.jobs.unconfirmed import Unconfirmed
from outbox.drivers.redis.operations import health, inspection, job_pages
from outbox.drivers.redis.operations import workers as workers_module
from outbox.drivers.redis.operations.failed_job_export import FailedStore, HandedOver
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.redis.pubsub import PubSub
from outbox.envelope import Envelope
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.settlement import Fence, Outcome, Settlement


class RedisDriver:
    """Jobs in Redis or Valkey. Its connections belong to the event loop on which they are first used.

    Failed jobs stay in Redis, or move to ``failed_store``, which the driver then owns.

    Raises:
        ConfigurationError: the URL is not one of a Redis.
    """

    def __init__(
        self, url: str, *, name: str = "redis", pool_size: int = 5, failed_store: FailedStore | None = None
    ) -> None:
        self.name = name
        self._store = open_store(url, 2 * pool_size)
        self._locator = JobLocator(self._store)
        self._blocking_claim = BlockingClaim(PubSub(url))
        self._unconfirmed = Unconfirmed()
        self._cross_slot_jobs = CrossSlotJobs(self._store)
        self._failed = FailedJobs(self._store) if failed_store is None else HandedOver(self._store, failed_store)
        self._server = ""
        self.on_relayed_end: Callable[[], None] = lambda: None
        """Called when relayed jobs have ended here."""

    @property
    def store(self) -> Store:
        """The connections, and what is sent over them."""
        return self._store

    @property
    def description(self) -> str:
        return f"{self._store.address} ({self._server})" if self._server else str(self._store.address)

    async def check(self) -> None:
        self._server = await health.check(self._store)
        await self._failed.check()

    async def now(self) -> datetime:
        return await inspection.now(self._store)

    async def health_issues(self) -> list[HealthIssue]:
        return [*await health.health_issues(self._store), *await self._failed.health_issues()]

    async def close(self) -> None:
        with suppress(OutboxError):
            await claim_module.give_back_unconfirmed(self._store, self._locator, self._unconfirmed, name=self.name)
        await self._failed.close()
        await self._blocking_claim.unsubscribe()
        await self._store.close()

    def drop(self) -> None:
        self._store.drop()

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await insert_module.insert(self._store, envelopes)

    async def insert_once(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        return await relay_target.insert_once(self._store, envelopes)

    async def take_ended(self) -> dict[JobId, str]:
        return await relay_target.take_ended(self._store)

    async def outcomes(self, queues: Mapping[JobId, str]) -> dict[JobId, Outcome]:
        return await relay_target.outcomes(self._store, queues)

    async def forget_accepted(self, queues: Mapping[JobId, str]) -> None:
        await relay_target.forget_accepted(self._store, queues)

    async def claim(
        self,
        queues: Sequence[str],
        limit: int,
        lease: float,
        *,
        short_jobs: bool = False,  # noqa: ARG002 - to hold a job costs the same for however long
    ) -> list[Claim]:
        return await claim_module.claim(
            self._store, self._locator, self._blocking_claim, self._unconfirmed, queues, limit, lease, name=self.name
        )

    async def fail_unreadable(self) -> int:
        """Claims look at everything that there is."""
        return 0

    async def cancel_blocking_claim(self) -> list[Claim]:
        return await claim_module.cancel_blocking_claim(
            self._store, self._locator, self._blocking_claim, self._unconfirmed, name=self.name
        )

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await claim_module.extend(self._store, self._locator, fences, lease)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        relayed = len(self._locator.relayed)
        settled = await settle_module.settle(
            self._store, self._locator, self._unconfirmed, self._cross_slot_jobs, self.name, settlements
        )
        if len(self._locator.relayed) < relayed:
            self.on_relayed_end()
        if any(settlement.outcome is Outcome.FAILED for settlement in settled.accepted):
            self._failed.arrived()
        return settled

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest | None = None) -> NextDue:
        return await claim_module.next_due(self._store, self._blocking_claim, self._unconfirmed, queues, waiting)

    async def heartbeat(self, worker: WorkerStatus) -> None:
        await workers_module.heartbeat(self._store, worker)
        await self._cross_slot_jobs.deliver_left()
        # Perhaps in a process that has ended since.
        self._failed.arrived()

    async def deregister(self, worker_id: bytes) -> None:
        await workers_module.deregister(self._store, worker_id)

    async def workers(self) -> list[WorkerStatus]:
        return await workers_module.list_workers(self._store)

    async def forget_workers(self, unseen_for: float) -> int:
        return await workers_module.forget_workers(self._store, unseen_for)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspection.get(self._store, job_id)

    async def find(self, digits: str) -> list[JobId]:
        return await inspection.find(self._store, digits)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspection.list_jobs(self._store, queue, limit)

    async def page_of_jobs(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await job_pages.page_of_jobs(self._store, matching, limit, after)

    async def counts(self) -> list[QueueCounts]:
        return inspection.with_failed(await inspection.counts(self._store), await self._failed.counts())

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspection.cancel(self._store, job_ids)

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._store, queue)

    async def pause(self, queue: str) -> bool:
        return await inspection.pause(self._store, queue)

    async def resume(self, queue: str) -> bool:
        return await inspection.resume(self._store, queue)

    async def get_failed(self, job_id: JobId) -> FailedJob | None:
        return await self._failed.get_failed(job_id)

    async def find_failed(self, digits: str) -> list[JobId]:
        return await self._failed.find_failed(digits)

    async def list_failed(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        return await self._failed.list_failed(queue, limit, before, matching)

    async def failed_groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        return await self._failed.groups(queue, limit, matching)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await self._failed.retry(job_ids)

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        return await self._failed.retry_all(queue, matching)

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        return await self._failed.unretryable(queue, limit, matching)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await self._failed.forget(job_ids)

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        return await self._failed.flush(queue, older_than, matching)
