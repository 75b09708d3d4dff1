"""The tables of schedules."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table

from outbox.drivers.database.tables import INNODB, ascii_text, binary, long_text, metadata, timestamp
from outbox.policies.schedule import LONGEST_NAME

schedules = Table(
    "queue_schedules",
    metadata,
    Column("name", ascii_text(LONGEST_NAME), primary_key=True),
    # What the code that declares it says of it: `Definition.hash`. NULL for one that was added at run time.
    Column("declaration", ascii_text(32)),
    Column("definition", long_text(), nullable=False),
    # Hashes that the declaration had before, of older releases of the application.
    Column("former", long_text()),
    Column("next_at", timestamp()),
    Column("last_tick", timestamp()),
    Column("paused_at", timestamp()),
    # When a worker last said that it knows the declaration.
    Column("seen_at", timestamp()),
    Index("queue_schedules_next_at", "next_at"),
    **INNODB,
)
"""One row for each schedule. ``next_at`` is NULL while it is paused, and when it never ticks again."""

schedule_ticks = Table(
    "queue_schedule_ticks",
    metadata,
    Column("name", ascii_text(LONGEST_NAME), primary_key=True),
    Column("tick", timestamp(), primary_key=True),
    Column("job_id", binary(), nullable=False),
    Column("ended_at", timestamp()),
    Index("queue_schedule_ticks_ended_at", "ended_at", "name"),
    **INNODB,
)
"""Ticks that became jobs. They are kept for a week after the job has ended."""
