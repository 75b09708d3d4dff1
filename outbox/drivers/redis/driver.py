"""Redis as a driver: each verb of the contract, and the module that does it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from outbox.drivers.base import (
    Claim,
    Concern,
    FailedJob,
    Lease,
    Outlook,
    QueueCounts,
    Settled,
    StoredJob,
    Waiting,
    WorkerStatus,
)
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.drivers.redis import accepting, claiming, concerns, fleet, inserting, inspecting, paging, settling
from outbox.drivers.redis.failed import FailedJobs
from outbox.drivers.redis.handover import FailedStore, HandedOver
from outbox.drivers.redis.messenger import Messenger
from outbox.drivers.redis.parking import Parking
from outbox.drivers.redis.standing import StandingClaim
from outbox.drivers.redis.store import open_store
from outbox.drivers.redis.unconfirmed import Unconfirmed
from outbox.drivers.redis.whereabouts import Whereabouts
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
        self._whereabouts = Whereabouts(self._store)
        self._standing = StandingClaim(Messenger(url))
        self._unconfirmed = Unconfirmed()
        self._parking = Parking(self._store)
        self._failed = FailedJobs(self._store) if failed_store is None else HandedOver(self._store, failed_store)
        self._server = ""

    @property
    def description(self) -> str:
        return f"{self._store.address} ({self._server})" if self._server else str(self._store.address)

    async def check(self) -> None:
        self._server = await concerns.check(self._store)
        await self._failed.check()

    async def now(self) -> datetime:
        return await inspecting.now(self._store)

    async def concerns(self) -> list[Concern]:
        return [*await concerns.concerns(self._store), *await self._failed.concerns()]

    async def close(self) -> None:
        with suppress(OutboxError):
            await claiming.give_back_unconfirmed(self._store, self._whereabouts, self._unconfirmed, name=self.name)
        await self._failed.close()
        await self._standing.hang_up()
        await self._store.close()

    def drop(self) -> None:
        self._store.drop()

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await inserting.insert(self._store, envelopes)

    async def accept(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        return await accepting.accept(self._store, envelopes)

    async def forget_accepted(self, envelopes: Sequence[Envelope]) -> None:
        await accepting.forget_accepted(self._store, envelopes)

    async def claim(
        self,
        queues: Sequence[str],
        limit: int,
        lease: float,
        *,
        brief: bool = False,  # noqa: ARG002 - to hold a job costs the same for however long
    ) -> list[Claim]:
        return await claiming.claim(
            self._store, self._whereabouts, self._standing, self._unconfirmed, queues, limit, lease, name=self.name
        )

    async def fail_unreadable(self) -> int:
        """Claims look at everything that there is."""
        return 0

    async def withdraw(self) -> list[Claim]:
        return await claiming.withdraw(
            self._store, self._whereabouts, self._standing, self._unconfirmed, name=self.name
        )

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await claiming.extend(self._store, self._whereabouts, fences, lease)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        settled = await settling.settle(
            self._store, self._whereabouts, self._unconfirmed, self._parking, self.name, settlements
        )
        if any(settlement.outcome is Outcome.FAILED for settlement in settled.accepted):
            self._failed.arrived()
        return settled

    async def look(self, queues: Sequence[str], waiting: Waiting | None = None) -> Outlook:
        return await claiming.look(self._store, self._standing, self._unconfirmed, queues, waiting)

    async def beat(self, worker: WorkerStatus) -> None:
        await fleet.beat(self._store, worker)
        await self._parking.deliver_left()
        # Perhaps in a process that has ended since.
        self._failed.arrived()

    async def retire(self, worker_id: bytes) -> None:
        await fleet.retire(self._store, worker_id)

    async def workers(self) -> list[WorkerStatus]:
        return await fleet.list_workers(self._store)

    async def forget_workers(self, unseen_for: float) -> int:
        return await fleet.forget_workers(self._store, unseen_for)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspecting.get(self._store, job_id)

    async def find(self, digits: str) -> list[JobId]:
        return await inspecting.find(self._store, digits)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspecting.list_jobs(self._store, queue, limit)

    async def page_of_jobs(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await paging.page_of_jobs(self._store, matching, limit, after)

    async def counts(self) -> list[QueueCounts]:
        return inspecting.with_failed(await inspecting.counts(self._store), await self._failed.counts())

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspecting.cancel(self._store, job_ids)

    async def clear(self, queue: str) -> int:
        return await inspecting.clear(self._store, queue)

    async def pause(self, queue: str) -> bool:
        return await inspecting.pause(self._store, queue)

    async def resume(self, queue: str) -> bool:
        return await inspecting.resume(self._store, queue)

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
