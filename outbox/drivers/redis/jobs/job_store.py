"""Live jobs in Redis: each verb of `JobStore`, and the module that does it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from outbox.drivers.filters import JobFilter, JobPage, JobPlace
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.jobs import insert as insert_module
from outbox.drivers.redis.jobs import settle as settle_module
from outbox.drivers.redis.jobs.blocking_claim import BlockingClaim
from outbox.drivers.redis.jobs.claim import RedisClaims
from outbox.drivers.redis.jobs.cross_slot import CrossSlotJobs
from outbox.drivers.redis.jobs.job_locator import JobLocator
from outbox.drivers.redis.jobs.relay_target import RelayedJobs
from outbox.drivers.redis.jobs.unconfirmed import Unconfirmed
from outbox.drivers.redis.operations import inspection, job_changes, job_pages
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.values import BlockingClaimRequest, Claim, JobChange, Lease, NextDue, Settled, StoredJob
from outbox.envelope import Envelope
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.settlement import Fence, MoveRates, Outcome, Settlement

_FAILED = Outcome.FAILED


class RedisJobs:
    """`JobStore`. ``name`` is that of the connection."""

    def __init__(
        self,
        store: Store,
        name: str,
        blocking_claim: BlockingClaim,
        failed: FailedJobs,
        relayed: RelayedJobs,
    ) -> None:
        self._store = store
        self._name = name
        self._failed = failed
        self._relayed = relayed
        self.locator = JobLocator(store)
        """Where the jobs are that this process holds."""
        self._unconfirmed = Unconfirmed()
        self._claims = RedisClaims(store, self.locator, blocking_claim, self._unconfirmed, name)
        self.cross_slot_jobs = CrossSlotJobs(store)

    async def close(self) -> None:
        """Give back the jobs of unconfirmed claims, if Redis answers."""
        with suppress(OutboxError):
            await self._claims.give_back_unconfirmed()

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await insert_module.insert(self._store, envelopes)

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        return await self._claims.claim(queues, limit, lease)

    async def cancel_blocking_claim(self) -> list[Claim]:
        return await self._claims.cancel_blocking()

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await self._claims.extend(fences, lease)

    async def missing(self, job_ids: Sequence[JobId]) -> frozenset[JobId]:
        return await self._claims.missing(job_ids)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        relayed = self.locator.has_relayed(settlements)
        settled = await settle_module.settle(
            self._store, self.locator, self._unconfirmed, self.cross_slot_jobs, self._name, settlements
        )
        if relayed:
            self._relayed.on_relayed_end()
        failed = [settlement for settlement in settled.accepted if settlement.outcome is _FAILED]
        if failed:
            self._failed.arrived()
        effects = [effect for settlement in settled.accepted if settlement.effects for effect in settlement.effects]
        if refused := [effect for effect in effects if isinstance(effect, MoveRates)]:
            self._relayed.on_refused(refused)
        return settled

    async def fail_unreadable(self) -> int:
        """Claims look at everything that there is."""
        return 0

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest | None = None) -> NextDue:
        return await self._claims.next_due(queues, waiting)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspection.get(self._store, job_id)

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:  # noqa: ARG002 - it looks at all
        return await inspection.find(self._store, digits)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspection.list_jobs(self._store, queue, limit)

    async def page(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await job_pages.page_of_jobs(self._store, matching, limit, after)

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspection.cancel(self._store, job_ids)

    async def change(self, job_id: JobId, wanted: JobChange) -> str | None:
        return await job_changes.change(self._store, job_id, wanted)


class PendingClaims:
    """`BlockingClaims`, made by `RedisJobs`."""

    def __init__(self, jobs: RedisJobs) -> None:
        self._jobs = jobs

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest) -> NextDue:
        return await self._jobs.next_due(queues, waiting)

    async def cancel(self) -> list[Claim]:
        return await self._jobs.cancel_blocking_claim()
