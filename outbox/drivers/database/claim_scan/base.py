"""What a claim asks of a scan: which jobs it may take, and where the next claim begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from outbox.drivers.database.connection.raw_connection import SqlConnection


class QueueRows(NamedTuple):
    """Rows of one queue, in the order of the claim index. ``emptied`` if fewer were found than asked for."""

    queue: str
    rows: Sequence[Any]
    emptied: bool


@dataclass(slots=True)
class Candidates:
    """Rows that a claim has locked and may take."""

    limit: int
    """How many the claim asked for."""
    queues: list[QueueRows] = field(default_factory=list)
    """In order of preference."""

    @property
    def missing(self) -> int:
        return self.limit - sum(len(each.rows) for each in self.queues)

    @property
    def full(self) -> bool:
        return self.missing <= 0

    def add(self, queue: str, rows: Sequence[Any]) -> None:
        self.queues.append(QueueRows(queue, rows, emptied=len(rows) < self.missing))


class Timings(NamedTuple):
    """Seconds that a claim took."""

    update: float
    """The statement that reserves its jobs."""
    whole: float
    """Everything, from before the transaction began until after its COMMIT."""


class ClaimScan(Protocol):
    """How the claims of one driver search the claim index. `HeadScan` is the default, and all that SQLite has."""

    async def select(
        self, tx: SqlConnection, queues: Sequence[str], limit: int, *, short_jobs: bool = False
    ) -> Candidates:
        """Lock up to ``limit`` jobs that are due and unheld, those of earlier queues first."""

    def holds_in_place(self, found: Candidates) -> bool:
        """Whether the claim reserves these jobs without moving them in the claim index."""

    def committed(self, found: Candidates, timings: Timings) -> None:
        """Learn from a claim whose transaction was committed: from all that it found, not from what it admitted."""
