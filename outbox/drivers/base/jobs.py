"""What every driver has for live jobs: stored, claimed, settled, inspected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outbox.drivers.filters import JobFilter, JobPage, JobPlace
from outbox.drivers.values import Claim, JobChange, Lease, NextDue, Settled, StoredJob
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement


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


class JobInspection(Protocol):
    """What an operator needs of live jobs."""

    async def get(self, job_id: JobId) -> StoredJob | None: ...

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        """Ids of live jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20. ``nearby``: a store
        may leave out those that it does not find at a bounded cost."""

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


class JobStore(JobWriter, JobClaims, JobInspection, Protocol):
    """Live jobs: stored, claimed, settled, inspected."""
