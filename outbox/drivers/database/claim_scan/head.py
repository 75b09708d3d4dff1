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

_CANDIDATES, _SPARE_CANDIDATES = 4, 32
"""How many candidates a claim reads for each job that it asks for, and how many more."""

_GROWTH, _MOST_GROWTH = 8, 64
"""By how many times that number grows if others hold too many of them, and the most with which a claim begins. It
is halved by each claim that finds enough."""


class HeadScan:
    cursors = None
    """A head scan has none."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._last_was_full = False
        self._growth = 1

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

    def committed(self, found: Candidates, timings: Timings) -> None:  # noqa: ARG002
        self._last_was_full = found.full

    async def fill(self, tx: SqlConnection, queues: Sequence[str], found: Candidates) -> None:
        """Add jobs from the heads of these queues."""
        for tried, queue in enumerate(await self._with_due(tx, queues)):
            if found.full or (tried >= _QUEUES_AT_ONCE and found.missing < found.limit):
                return
            found.add(queue, await self.lock(tx, queue, self._dialect.due(), found.missing))

    async def lock(
        self, tx: SqlConnection, queue: str, due: Statement, limit: int, more: Statement = ("", ())
    ) -> list[Any]:
        """Lock up to ``limit`` jobs of a queue that are ``due``. ``more``: see `Dialect.select_claimable`.

        Claims at one moment read the same candidates. If others hold so many of them that none is left, or too few
        after a claim that was full, this reads more of them. It finds again what it has locked.
        """
        candidates = self._growth * (_CANDIDATES * limit + _SPARE_CANDIDATES)
        while True:
            statement = self._dialect.select_claimable(queue, due, limit, candidates, more)
            rows = list(await tx.exec_driver_sql(*statement))
            if len(rows) >= limit:
                self._growth = max(1, self._growth // 2)
                break
            if rows and not self._last_was_full:
                break
            beyond = self._dialect.has_candidates_after(queue, due, candidates)
            if beyond is None or not list(await tx.exec_driver_sql(*beyond)):
                break
            candidates *= _GROWTH
            self._growth = min(_MOST_GROWTH, self._growth * _GROWTH * 2)
        return (self._dialect.claimable_in if more[0] else self._dialect.claimable).rows(rows)

    async def _with_due(self, tx: SqlConnection, queues: Sequence[str]) -> Sequence[str]:
        """Which queues have due jobs: one statement for many queues, instead of one for each."""
        if len(queues) == 1:
            return queues
        statement = self._dialect.queues_with_due(len(queues))
        due = {row[0] for row in await tx.exec_driver_sql(statement, self._dialect.due_parameters(queues))}
        return [queue for queue in queues if queue in due]
