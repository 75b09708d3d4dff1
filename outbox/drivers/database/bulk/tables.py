"""The table of bulk operations, and its rows as values."""

from __future__ import annotations

import json

from sqlalchemy import BigInteger, Column, Index, RowMapping, Table

from outbox.drivers.bulk import BulkFilter, BulkOperation, BulkRequest, BulkState, Verb
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import INNODB, ascii_text, binary, key_name, long_text, metadata, timestamp
from outbox.ids import JobId

operations = Table(
    "queue_operations",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("verb", ascii_text(16), nullable=False),
    Column("matching", long_text(), nullable=False),
    Column("to_queue", ascii_text(64)),
    Column("requested_by", key_name()),
    Column("state", ascii_text(16), nullable=False),
    # How many jobs matched at the beginning; NULL: too many to count.
    Column("total", BigInteger()),
    Column("done", BigInteger(), nullable=False),
    Column("refused", BigInteger(), nullable=False),
    Column("reason", long_text()),
    # Jobs are walked over by id: up to `position` they have been, and `last_id` is the greatest of the beginning.
    Column("position", binary(), nullable=False),
    Column("last_id", binary(), nullable=False),
    # Where another walk begins, because other transactions held jobs. NULL: there is none.
    Column("again_from", binary()),
    Column("created_at", timestamp(), nullable=False),
    Column("started_at", timestamp()),
    Column("finished_at", timestamp()),
    Index("queue_operations_finished_at", "finished_at"),
    **INNODB,
)
"""``matching`` is a `BulkFilter` as JSON."""


def dump_filter(matching: BulkFilter) -> str:
    return json.dumps(matching.given(), ensure_ascii=False)


def operation_of(dialect: Dialect, row: RowMapping) -> BulkOperation:
    started, finished = row["started_at"], row["finished_at"]
    return BulkOperation(
        id=JobId(bytes=bytes(row["id"])),
        request=BulkRequest(Verb(row["verb"]), BulkFilter(**json.loads(row["matching"])), row["to_queue"]),
        by=row["requested_by"],
        state=BulkState(row["state"]),
        total=row["total"],
        done=row["done"],
        refused=row["refused"],
        reason=row["reason"],
        created_at=dialect.parse_timestamp(row["created_at"]),
        started_at=None if started is None else dialect.parse_timestamp(started),
        finished_at=None if finished is None else dialect.parse_timestamp(finished),
    )
