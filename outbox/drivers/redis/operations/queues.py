"""Queues for an operator: counts, clear, pause and resume."""

from __future__ import annotations

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.operations import inspection
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.values import QueueCounts


class Queues:
    """`QueueControl`."""

    def __init__(self, store: Store, failed: FailedJobs) -> None:
        self._store = store
        self._failed = failed

    async def counts(self) -> list[QueueCounts]:
        return inspection.with_failed(await inspection.counts(self._store), await self._failed.counts())

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._store, queue)

    async def pause(self, queue: str) -> bool:
        return await inspection.pause(self._store, queue)

    async def resume(self, queue: str) -> bool:
        return await inspection.resume(self._store, queue)
