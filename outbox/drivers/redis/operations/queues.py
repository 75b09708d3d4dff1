"""Queues for an operator: counts, clear, pause and resume."""

from __future__ import annotations

from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.operations import inspection
from outbox.drivers.redis.operations.failed_jobs import FailedJobs
from outbox.drivers.redis.operations.pauses import Pauses
from outbox.drivers.values import QueueCounts


class Queues:
    """`QueueControl`."""

    def __init__(self, store: Store, failed: FailedJobs, pauses: Pauses) -> None:
        self._store = store
        self._failed = failed
        self._pauses = pauses

    async def counts(self) -> list[QueueCounts]:
        return inspection.with_failed(await inspection.counts(self._store), await self._failed.counts())

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._store, queue)

    async def pause(self, queue: str) -> bool:
        return await self._pauses.pause(PauseTarget(PauseKind.QUEUE, queue), PauseTerms())

    async def resume(self, queue: str) -> bool:
        return await self._pauses.resume(PauseTarget(PauseKind.QUEUE, queue), lambda _: None)
