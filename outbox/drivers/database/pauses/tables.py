"""The tables of pauses of job classes and keys, and of circuit breakers. Those of queues are in `pauses`."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Column, Integer, Table

from outbox.drivers.database.tables import INNODB, ascii_text, binary, metadata, short_text, small, timestamp

job_pauses = Table(
    "queue_job_pauses",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("kind", small(), nullable=False),
    Column("name", short_text(), nullable=False),
    Column("reason", short_text()),
    Column("paused_by", short_text()),
    Column("paused_at", timestamp(), nullable=False),
    # NULL: until it is resumed.
    Column("paused_until", timestamp()),
    # A job that may run all the same: that of a circuit breaker which looks whether its class works again.
    Column("probe", binary()),
    **INNODB,
)
"""``id`` is a hash of the kind and the name. A claim that finds a row here looks which of its jobs are paused."""

paused_jobs = Table(
    "queue_paused_jobs",
    metadata,
    Column("pause_id", binary(), primary_key=True),
    Column("job_id", binary(), primary_key=True),
    **INNODB,
)
"""Jobs that claims have parked because their class or key is paused. Their ids have the order of dispatch."""

breakers = Table(
    "queue_breakers",
    metadata,
    Column("name", ascii_text(255), primary_key=True),
    Column("state", small(), nullable=False),
    # Exceptions since `counted_from`.
    Column("failures", Integer(), nullable=False),
    Column("counted_from", timestamp(), nullable=False),
    # How often it has opened without having closed.
    Column("opened", Integer(), nullable=False),
    Column("changed_at", timestamp(), nullable=False),
    **INNODB,
)
"""The circuit breaker of a job class: `outbox.throttle_exceptions`."""


class BreakerState(IntEnum):
    """Of a row of `breakers`."""

    CLOSED = 0
    OPEN = 1
    """Its class is paused, or was until an operator resumed it."""


class StoredKind(IntEnum):
    """Of a row of `job_pauses`."""

    JOB = 1
    KEY = 2
