"""Queues for an operator: counts, clear, pause and resume."""

from __future__ import annotations

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations import inspection, live_counts
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.values import QueueCounts


class Queues:
    """`QueueControl`."""

    def __init__(self, database: Database, scope: FailedJobScope) -> None:
        self._database = database
        self._scope = scope

    async def counts(self) -> list[QueueCounts]:
        return await live_counts.counts(self._database, self._scope)

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._database, queue)

    async def pause(self, queue: str) -> bool:
        return await inspection.pause(self._database, queue)

    async def resume(self, queue: str) -> bool:
        return await inspection.resume(self._database, queue)
