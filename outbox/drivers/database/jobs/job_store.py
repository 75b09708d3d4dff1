"""Live jobs in a database: each verb of `JobStore`, and the module that does it."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.claim_scan.aging import AgingScan
from outbox.drivers.database.claim_scan.base import ClaimScan
from outbox.drivers.database.claim_scan.cursor_scan import scan_for
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.jobs import claim as claim_module
from outbox.drivers.database.jobs import direct_insert, next_due, unreadable
from outbox.drivers.database.jobs import lease as lease_module
from outbox.drivers.database.jobs import settle as settle_module
from outbox.drivers.database.jobs.claim import ClaimRequest
from outbox.drivers.database.jobs.unconfirmed import UnconfirmedWrites
from outbox.drivers.database.operations import inspection, job_changes, job_pages
from outbox.drivers.filters import JobFilter, JobPage, JobPlace
from outbox.drivers.values import Claim, JobChange, Lease, NextDue, Settled, StoredJob
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement


class DatabaseJobs:
    """`JobStore`, in the table `queue_jobs`. ``name`` is that of the connection."""

    def __init__(self, database: Database, name: str, *, inserts_directly: bool) -> None:
        self._database = database
        self.unconfirmed = UnconfirmedWrites()
        self.claim_scan = scan_for(database)
        """Where claims search, and what they have learnt."""
        self._name = name
        self._inserts_directly = inserts_directly

    async def close(self) -> None:
        """Give back the jobs of unconfirmed claims, if the database answers."""
        await lease_module.give_back(self._database, self.unconfirmed)

    async def insert(self, envelopes: Sequence[Envelope]) -> None:
        await direct_insert.insert(self._database, envelopes, directly=self._inserts_directly)

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        return await self._claim(self.claim_scan, ClaimRequest(queues, limit, lease))

    async def claim_aged(self, queues: Sequence[str], limit: int, lease: float, waited: float) -> list[Claim]:
        return await self._claim(AgingScan(self._database.dialect, waited), ClaimRequest(queues, limit, lease))

    async def claim_short_jobs(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        return await self._claim(self.claim_scan, ClaimRequest(queues, limit, lease, short_jobs=True))

    async def _claim(self, scan: ClaimScan, request: ClaimRequest) -> list[Claim]:
        return await claim_module.claim(self._database, self.unconfirmed, scan, self._name, request)

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        return await lease_module.extend(self._database, fences, lease)

    async def missing(self, job_ids: Sequence[JobId]) -> frozenset[JobId]:
        return await lease_module.missing(self._database, job_ids)

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        return await settle_module.settle(self._database, self.unconfirmed, self._name, settlements)

    async def fail_unreadable(self) -> int:
        return await unreadable.fail_unreadable(self._database, self._name)

    async def next_due(self, queues: Sequence[str]) -> NextDue:
        return await next_due.next_due(self._database, self.claim_scan.cursors, queues)

    async def get(self, job_id: JobId) -> StoredJob | None:
        return await inspection.get(self._database, job_id)

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        return await inspection.find(self._database, digits, nearby=nearby)

    async def list_jobs(self, queue: str | None = None, limit: int = 100) -> list[StoredJob]:
        return await inspection.list_jobs(self._database, queue, limit)

    async def page(self, matching: JobFilter, limit: int = 100, after: JobPlace | None = None) -> JobPage:
        return await job_pages.page_of_jobs(self._database, matching, limit, after)

    async def cancel(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspection.cancel(self._database, job_ids)

    async def change(self, job_id: JobId, wanted: JobChange) -> str | None:
        return await job_changes.change(self._database, job_id, wanted)
