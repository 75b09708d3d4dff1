"""The table of metrics."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from sqlalchemy import Column, Index, Table

from outbox.drivers.database.tables import INNODB, ascii_text, binary, long_text, metadata, small, timestamp

queue_metrics = Table(
    "queue_metrics",
    metadata,
    # Known before the row is written, so that writing it twice leaves one. Ids grow: rows are added at the end.
    Column("id", binary(), primary_key=True),
    Column("period", small(), nullable=False),
    Column("begins_at", timestamp(), nullable=False),
    # Empty for a count of all jobs.
    Column("queue", ascii_text(64), nullable=False),
    Column("name", ascii_text(255), nullable=False),
    Column("data", long_text(), nullable=False),
    Index("queue_metrics_period", "period", "begins_at"),
    Index("queue_metrics_queue", "queue", "begins_at"),
    **INNODB,
)
"""What was done by jobs of a class in a queue, or, without a queue, how many jobs there were. Rows are only inserted,
and replaced by merged ones."""


ROLLUP = 11
"""``period`` of a row with what all workers did in ten minutes, of the queue `EVERY_QUEUE`: see `rollups`. No `Period`:
the rows that it was made of are there beside it, and a reader of those must not count it as well."""


class Period(IntEnum):
    """How long the time of a row is, in minutes."""

    WRITTEN = 0
    """One minute, as one worker has written it."""
    MINUTE = 1
    TEN_MINUTES = 10
    HOUR = 60

    @classmethod
    def of(cls, stored: Any) -> Period:
        """That of a row; of one that another program has written, `MINUTE`."""
        return cls(stored) if stored in set(cls) else cls.MINUTE

    @property
    def seconds(self) -> int:
        return 60 * max(1, self.value)
