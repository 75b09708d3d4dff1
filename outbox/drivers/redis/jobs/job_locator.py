"""Finds the queue of a job. Keys are named after the queue, and a fence names only the job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.keys import HELD, key
from outbox.drivers.redis.script import command
from outbox.ids import JobId
from outbox.settlement import ENDS, Fence, Settlement

# A worker holds some hundreds. The rest are jobs that it lost and never settled.
_REMEMBERED = 50_000


class JobLocator:
    """Remembers the queues of jobs that this driver claimed, until they are settled. It searches for other jobs.

    A job that was put back can be claimed again before the driver has read the answer to that settlement. So a
    settlement ends what is known of its own claim, and not of a later one.

    The heartbeat of a worker has a separate driver, which claims nothing. It searches for each job once, when it renews
    the lease for the first time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claimed: dict[JobId, tuple[bytes, str]] = {}
        """Token and queue of each."""
        self._renewed: dict[JobId, str] = {}
        self.relayed: set[JobId] = set()
        """The claimed jobs whose rows in a database wait for their end."""

    def claimed(self, fence: Fence, queue: str, *, relayed: bool = False) -> None:
        """``relayed``: a row of the job in a database waits for its end."""
        self._claimed[fence.job_id] = fence.token, queue
        if relayed:
            self.relayed.add(fence.job_id)
        if len(self._claimed) > _REMEMBERED:
            oldest = next(iter(self._claimed))
            del self._claimed[oldest]
            self.relayed.discard(oldest)

    def settled(self, fences: Iterable[Fence]) -> None:
        for job_id, token in fences:
            claimed = self._claimed.pop(job_id, None)
            if claimed is None:
                continue
            if claimed[0] != token:
                self._claimed[job_id] = claimed
            elif self.relayed:
                self.relayed.discard(job_id)

    def has_relayed(self, settlements: Iterable[Settlement]) -> bool:
        """Whether one of them is an end that a row in a database waits for."""
        if not self.relayed:
            return False
        return not self.relayed.isdisjoint(each.fence.job_id for each in settlements if each.outcome in ENDS)

    def renewed(self, queues: dict[JobId, str]) -> None:
        """Replace the jobs that are known to be held."""
        self._renewed = queues

    def queue_of(self, job_id: JobId) -> str | None:
        """The queue of a job that is known to be held, without a search."""
        claimed = self._claimed.get(job_id)
        return self._renewed.get(job_id) if claimed is None else claimed[1]

    async def of(self, fences: Sequence[Fence]) -> dict[JobId, str]:
        """The queue of each job that is held."""
        found = {}
        unknown = []
        for job_id, _ in fences:
            queue = self.queue_of(job_id)
            if queue is None:
                unknown.append(job_id)
            else:
                found[job_id] = queue
        return found | await self._search(unknown) if unknown else found

    async def _search(self, job_ids: Sequence[JobId]) -> dict[JobId, str]:
        queues = await self._store.queues()
        ids = [job_id.bytes for job_id in job_ids]
        holds = await self._store.do_all([command("HMGET", key(queue, HELD), *ids) for queue in queues])
        return {
            job_id: queue
            for queue, holds_there in zip(queues, holds, strict=True)
            for job_id, hold in zip(job_ids, holds_there, strict=True)
            if hold is not None
        }
