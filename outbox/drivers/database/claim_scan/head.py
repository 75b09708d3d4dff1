"""Claims from the head of the claim index, where the most urgent and oldest jobs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outbox.drivers.database.claim_scan.base import Candidates, Timings
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect, Statement

_QUEUES_AT_ONCE = 8
"""Once it has found something, a claim reads no more queues than this: each takes a round trip, and what was found
stays locked meanwhile. The next claim follows at once."""


class HeadScan:
    """Every claim begins at the head."""

    cursors = None
    """A head scan has none."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    async def select(
        self,
        tx: SqlConnection,
        queues: Sequence[str],
        limit: int,
        *,
        short_jobs: bool = False,  # noqa: ARG002 - a head is a head for any jobs
    ) -> Candidates:
        found = Candidates(limit)
        await self.fill(tx, queues, found)
        return found

    def holds_in_place(self, found: Candidates) -> bool:  # noqa: ARG002
        return False

    def committed(self, found: Candidates, timings: Timings) -> None:
        """There is nothing to learn: the next claim begins at the head as well."""

    async def fill(self, tx: SqlConnection, queues: Sequence[str], found: Candidates) -> None:
        """Add jobs from the heads of these queues."""
        for tried, queue in enumerate(await self._with_due(tx, queues)):
            if found.full or (tried >= _QUEUES_AT_ONCE and found.missing < found.limit):
                return
            found.add(queue, await self.lock(tx, queue, self._dialect.due(), found.missing))

    async def lock(self, tx: SqlConnection, queue: str, due: Statement, limit: int) -> list[Any]:
        """Lock up to ``limit`` jobs of a queue that are ``due``."""
        statement = self._dialect.select_claimable(queue, due, limit)
        return self._dialect.claimable.rows(await tx.exec_driver_sql(*statement))

    async def _with_due(self, tx: SqlConnection, queues: Sequence[str]) -> Sequence[str]:
        """Which queues have due jobs: one statement for many queues, instead of one for each."""
        if len(queues) == 1:
            return queues
        statement = self._dialect.queues_with_due(len(queues))
        due = {row[0] for row in await tx.exec_driver_sql(statement, self._dialect.due_parameters(queues))}
        return [queue for queue in queues if queue in due]
