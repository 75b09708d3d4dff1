"""The tables of jobs, workers, pauses of queues, keys, rates and batches, and the types of columns. Other tables are
beside the code of their subject, in the same ``metadata``.

An application adds them to its own Alembic with ``target_metadata = [Base.metadata, outbox.metadata]``.
``queue_jobs`` holds live jobs only: waiting, delayed, reserved. Finished jobs leave it.

A new column is added here and in a migration: INSERTs, claims and the move to the failed jobs and back are made from
these tables. Code that uses the column reads it from the row of a claim by its name.
"""

from __future__ import annotations

from datetime import datetime
from enum import Flag, auto
from typing import Any

from sqlalchemy import (
    BINARY,
    JSON,
    BigInteger,
    Column,
    Connection,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from outbox.settlement import SUMMARY_LIMIT

metadata = MetaData()

PARKED = "9999-12-31 00:00:00.000000"
"""``available_at`` of a job that a policy has parked: no claim reaches it until the policy gives it a time."""

CLAIM_INDEX = "queue_jobs_claim"

EVERY_QUEUE = "*"
"""In `pauses`, in place of a queue, whose name it cannot be: nothing is claimed from the connection."""


def binary(length: int = 16) -> TypeEngine[bytes]:
    return LargeBinary(length).with_variant(BINARY(length), "mysql", "mariadb")


def ascii_text(length: int) -> TypeEngine[str]:
    """Names are ASCII and compared byte by byte: shorter index entries, and no collation to take one for another."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def timestamp() -> TypeEngine[datetime]:
    """UTC with microseconds, without a zone, as ``UTC_TIMESTAMP(6)`` returns it."""
    return DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def small() -> TypeEngine[int]:
    return SmallInteger().with_variant(mysql.SMALLINT(unsigned=True), "mysql", "mariadb")


def short_text(length: int = 255) -> TypeEngine[str]:
    """Up to ``length`` of any characters, compared byte by byte."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def long_text() -> TypeEngine[str]:
    """Text, not JSON: a failed job keeps a payload that is broken JSON byte for byte."""
    return Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


class Use(Flag):
    """Which general statements name a column of `jobs`. A column that has neither is named only by code about it."""

    ENVELOPE = auto()
    """An INSERT takes the value from the attribute of the same name of `Envelope`."""
    CLAIM = auto()
    """A claim reads it."""


_BOTH = {"use": Use.ENVELOPE | Use.CLAIM}
_ENVELOPE = {"use": Use.ENVELOPE}
_CLAIM = {"use": Use.CLAIM}

jobs = Table(
    "queue_jobs",
    metadata,
    Column("id", binary(), primary_key=True, info=_CLAIM),
    Column("queue", ascii_text(64), nullable=False, info=_ENVELOPE),
    Column("name", ascii_text(255), nullable=False, info=_BOTH),
    Column("priority", small(), nullable=False, info=_BOTH),
    Column("payload", JSON(), nullable=False, info=_BOTH),
    Column("headers", JSON(), nullable=False, info=_BOTH),
    Column("attempts", small(), nullable=False, info=_CLAIM),
    Column("available_at", timestamp(), nullable=False, info=_CLAIM),
    Column("reserved_by", binary()),
    Column("reserved_until", timestamp()),
    Column("created_at", timestamp(), nullable=False),
    # `Failure.summary`. In no index: a failed attempt writes them, and nothing looks for them.
    Column("last_error", short_text(SUMMARY_LIMIT)),
    Column("last_error_at", timestamp()),
    # Bits of `Policies`. An INSERT names it only for jobs that have one.
    Column("policies", small(), info=_CLAIM),
    Index(CLAIM_INDEX, "queue", "priority", "available_at"),
    **INNODB,
)

failed_jobs = Table(
    "queue_failed_jobs",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("connection", ascii_text(64), nullable=False),
    Column("queue", ascii_text(64), nullable=False),
    Column("name", ascii_text(255), nullable=False),
    Column("priority", small(), nullable=False),
    Column("payload", long_text(), nullable=False),
    Column("headers", long_text(), nullable=False),
    Column("attempts", small(), nullable=False),
    Column("exception", JSON(), nullable=False),
    Column("failed_at", timestamp(), nullable=False),
    Column("policies", small()),
    # `Failure.fingerprint`; NULL for failures of earlier releases.
    Column("fingerprint", ascii_text(16)),
    Index("queue_failed_jobs_failed_at", "failed_at"),
    Index("queue_failed_jobs_fingerprint", "fingerprint", "name", "failed_at"),
    Index("queue_failed_jobs_queue", "queue", "failed_at"),
    **INNODB,
)


def _names(use: Use) -> tuple[str, ...]:
    return tuple(column.name for column in jobs.c if use in column.info.get("use", Use(0)))


FROM_ENVELOPE = _names(Use.ENVELOPE)
CLAIMED = _names(Use.CLAIM)
KEPT = tuple(column.name for column in jobs.c if column.name in failed_jobs.c)
"""Columns of `jobs` that a failed job keeps, and that a retry puts back: those that `failed_jobs` has too."""

workers = Table(
    "queue_workers",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("name", ascii_text(64), nullable=False),
    Column("host", ascii_text(255), nullable=False),
    Column("pid", Integer(), nullable=False),
    Column("queues", long_text(), nullable=False),
    Column("concurrency", Integer(), nullable=False),
    Column("running", Integer(), nullable=False),
    Column("processed", Integer(), nullable=False),
    Column("failed", Integer(), nullable=False),
    Column("started_at", timestamp(), nullable=False),
    Column("seen_at", timestamp(), nullable=False),
    Column("running_jobs", long_text()),
    # What an operator asks the process to do, until it has heard of it: `WorkerOrder`.
    Column("ordered", ascii_text(16)),
    Column("state", ascii_text(16)),
    Column("memory", BigInteger()),
    Column("version", ascii_text(64)),
    **INNODB,
)

pauses = Table(
    "queue_pauses",
    metadata,
    # `EVERY_QUEUE` for the whole connection.
    Column("queue", ascii_text(64), primary_key=True),
    Column("paused_at", timestamp(), nullable=False),
    Column("reason", short_text()),
    # NULL: until it is resumed.
    Column("paused_until", timestamp()),
    Column("paused_by", short_text()),
    **INNODB,
)

lock_slots = Table(
    "queue_lock_slots",
    metadata,
    Column("slot", small(), primary_key=True, autoincrement=False),
    **INNODB,
)
"""Rows that dispatches lock in place of the gaps between keys. The migration writes them; they never change."""

key_slots = Table(
    "queue_key_slots",
    metadata,
    Column("slot", small(), primary_key=True, autoincrement=False),
    **INNODB,
)
"""Rows that claims and settlements of jobs with keys lock, and no dispatch. The migration writes them."""

inbox_slots = Table(
    "queue_inbox_slots",
    metadata,
    Column("slot", small(), primary_key=True, autoincrement=False),
    **INNODB,
)
"""Rows that consumers of messages lock. Slots of their own: a consumer holds one while it dispatches unique jobs. The
migration writes them; they never change."""

keyed_jobs = Table(
    "queue_keyed_jobs",
    metadata,
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", binary(), nullable=False),
    Column("kind", small(), nullable=False),
    Column("key_hash", binary(), nullable=False),
    Column("state", small(), nullable=False),
    # When the job becomes due: with the sequence, its place under its key.
    Column("moment", timestamp(), nullable=False),
    Column("size", small(), nullable=False),
    Column("name", short_text(), nullable=False),
    Index("queue_keyed_jobs_job", "job_id", "kind", unique=True),
    Index("queue_keyed_jobs_key", "key_hash", "state", "moment", "seq"),
    **INNODB,
)
"""A row for each key of each live job: `policies.keys`."""

rate_slots = Table(
    "queue_rate_slots",
    metadata,
    Column("slot", small(), primary_key=True, autoincrement=False),
    **INNODB,
)
"""Rows that claims lock before they take from a rate limit. The migration writes them; they never change."""

limits = Table(
    "queue_limits",
    metadata,
    Column("name", ascii_text(255), primary_key=True),
    # NULL: as the jobs have declared it.
    Column("rate", ascii_text(32)),
    Column("burst", Integer()),
    Column("align", ascii_text(8)),
    Column("concurrency", Integer()),
    Column("set_at", timestamp(), nullable=False),
    **INNODB,
)
"""Limits that an operator has set: of rates by their names, and of jobs of a class that run at once by the job's."""

rates = Table(
    "queue_rates",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("name", ascii_text(255), nullable=False),
    Column("key_name", short_text()),
    Column("rate", ascii_text(32), nullable=False),
    Column("burst", Integer()),
    Column("align", ascii_text(8)),
    # Nanoseconds since 1970: the theoretical arrival time, or the start of a window.
    Column("arrival", BigInteger(), nullable=False),
    Column("used", BigInteger(), nullable=False),
    **INNODB,
)
"""The state of each limit and key: `policies.rate.State`."""

rate_waits = Table(
    "queue_rate_waits",
    metadata,
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", binary(), nullable=False),
    Column("rate_id", binary(), nullable=False),
    # 0 parked; 1 let in: the job has the time at which it may start.
    Column("state", small(), nullable=False),
    Column("cost", Integer(), nullable=False),
    Index("queue_rate_waits_job", "job_id", unique=True),
    Index("queue_rate_waits_rate", "rate_id", "state", "seq"),
    **INNODB,
)
"""Jobs that wait for a rate limit, in the order in which they came."""


def _seed_of(table: Table) -> str:
    return (
        f"INSERT INTO {table.name} (slot) "
        "WITH digits AS (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 "
        "UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 "
        "UNION ALL SELECT 10 UNION ALL SELECT 11 UNION ALL SELECT 12 UNION ALL SELECT 13 UNION ALL SELECT 14 "
        "UNION ALL SELECT 15) "
        "SELECT high.d * 256 + middle.d * 16 + low.d FROM digits AS high, digits AS middle, digits AS low "
        f"WHERE high.d * 256 + middle.d * 16 + low.d NOT IN (SELECT slot FROM {table.name})"
    )


SEEDS = {table.name: _seed_of(table) for table in (lock_slots, key_slots, rate_slots, inbox_slots)}
"""INSERTs of the rows that tables are made with. Each adds what is missing."""


def _seed(table: Table, connection: Connection | None, *, _ddl_runner: Any = None, **_: Any) -> None:
    if table.name not in SEEDS:
        return
    if getattr(_ddl_runner, "as_sql", False):
        _ddl_runner.execute(SEEDS[table.name])
    elif isinstance(connection, Connection):
        connection.exec_driver_sql(SEEDS[table.name])


# Of any table: a revision that autogenerate has written makes one of its own.
event.listen(Table, "after_create", _seed)

batches = Table(
    "queue_batches",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("name", ascii_text(100), nullable=False),
    # What was dispatched with it. Later additions have rows of their own.
    Column("total", Integer(), nullable=False),
    Column("plan", long_text(), nullable=False),
    Column("ran", small(), nullable=False),
    Column("created_at", timestamp(), nullable=False),
    Column("cancelled_at", timestamp()),
    Column("finished_at", timestamp()),
    Index("queue_batches_finished_at", "finished_at"),
    **INNODB,
)
"""``plan`` is a `BatchPlan`, ``ran`` holds bits of `Ran`."""


def _of_batch(name: str, *more: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("batch_id", binary(), primary_key=True),
        Column("member_id", binary(), primary_key=True),
        *more,
        **INNODB,
    )


batch_members = _of_batch("queue_batch_members")
"""Members that have not ended: ids of jobs, and of batches."""
batch_failures = _of_batch("queue_batch_failures")
"""Members that have failed for good."""
batch_additions = _of_batch("queue_batch_additions", Column("members", Integer(), nullable=False))
"""How many members each later dispatch has added."""
