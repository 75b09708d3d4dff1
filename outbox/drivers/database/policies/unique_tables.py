"""The tables of unique jobs."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Column, Index, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.types import LargeBinary

from outbox.drivers.database.tables import INNODB, binary, long_text, metadata, small, timestamp

MOST_PARKED = 64
"""Jobs that wait for the end of one of their key: more are looked at again after a moment."""

unique = Table(
    "queue_unique",
    metadata,
    Column("unique_key", binary(32), primary_key=True),
    Column("job_id", binary(), nullable=False),
    Column("held_until", timestamp()),
    **INNODB,
)
"""The last job of each key. Only transactions that have locked the key's slot touch it, and `upkeep`."""

unique_jobs = Table(
    "queue_unique_jobs",
    metadata,
    Column("job_id", binary(), primary_key=True),
    Column("unique_key", binary(32), nullable=False),
    Column("state", small(), nullable=False),
    Column("due_at", timestamp(), nullable=False),
    Column("first_at", timestamp(), nullable=False),
    Column("payload", long_text()),
    Index("queue_unique_jobs_state", "state", "due_at"),
    **INNODB,
)
"""Whether a unique job waits. A dispatch that joins it and a claim that starts it lock its row, with SKIP LOCKED."""

unique_running = Table(
    "queue_unique_running",
    metadata,
    Column("unique_key", binary(32), primary_key=True),
    Column("job_id", binary(), nullable=False),
    Column("parked", LargeBinary(16 * MOST_PARKED).with_variant(mysql.VARBINARY(16 * MOST_PARKED), "mysql", "mariadb")),
    **INNODB,
)
"""The running job of each key that lasts until its end, and the ids of those that wait for that."""


class State(IntEnum):
    """Of a job in `unique_jobs`."""

    WAITING = 0
    PARKED = 1
    """Its key has a running job: dispatches join it, however long it has been due."""
    STARTED = 2
    REMOVED = 3
