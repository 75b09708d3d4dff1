"""Queues for an operator: counts, clear, pause and resume."""

from __future__ import annotations

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations import inspection, live_counts
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.pauses.store import Pauses
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.drivers.values import QueueCounts


class Queues:
    """`QueueControl`."""

    def __init__(self, database: Database, scope: FailedJobScope, pauses: Pauses) -> None:
        self._database = database
        self._scope = scope
        self._pauses = pauses

    async def counts(self) -> list[QueueCounts]:
        return await live_counts.counts(self._database, self._scope)

    async def clear(self, queue: str) -> int:
        return await inspection.clear(self._database, queue)

    async def pause(self, queue: str) -> bool:
        return await self._pauses.pause(PauseTarget(PauseKind.QUEUE, queue), PauseTerms())

    async def resume(self, queue: str) -> bool:
        return await self._pauses.resume(PauseTarget(PauseKind.QUEUE, queue), lambda _: None)
