"""Claims from the lowest priority whose jobs have waited for long."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.claim_scan.base import Candidates
from outbox.drivers.database.claim_scan.head import HeadScan
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.options import PRIORITIES


class AgingScan(HeadScan):
    """Reads the first entry of each priority of each queue, and then one priority."""

    def __init__(self, dialect: Dialect, waited: float) -> None:
        super().__init__(dialect)
        self._waited = waited

    async def select(
        self,
        tx: SqlConnection,
        queues: Sequence[str],
        limit: int,
        *,
        short_jobs: bool = False,  # noqa: ARG002 - as for any head
    ) -> Candidates:
        found = Candidates(limit)
        for queue in queues:
            priority = await self._lowest_that_waits(tx, queue)
            if priority is not None:
                due = f"priority = {priority} AND available_at <= {self._dialect.now}", ()
                found.add(queue, await self.lock(tx, queue, due, limit))
                return found
        return found

    async def _lowest_that_waits(self, tx: SqlConnection, queue: str) -> int | None:
        mark = self._dialect.placeholder
        long_ago = self._dialect.seconds_from_now(-self._waited)
        columns = ", ".join(f"{self._dialect.first(mark, str(priority))} <= {long_ago}" for priority in PRIORITIES)
        rows = await tx.exec_driver_sql(f"SELECT {columns}", (queue,) * len(PRIORITIES))
        [waits] = list(rows)
        return max((priority for priority in PRIORITIES if waits[priority]), default=None)
