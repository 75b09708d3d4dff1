"""The table of bulk operations, and its rows as values."""

from __future__ import annotations

import json
import logging
from functools import lru_cache

from sqlalchemy import BigInteger, Column, Index, RowMapping, Table

from outbox.drivers.bulk import BulkFilter, BulkOperation, BulkRequest, BulkState, Verb
from outbox.drivers.database import raw_columns
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import INNODB, ascii_text, binary, long_text, metadata, short_text, timestamp
from outbox.errors import OutboxError

_log = logging.getLogger("outbox.drivers")

operations = Table(
    "queue_operations",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("verb", ascii_text(16), nullable=False),
    Column("matching", long_text(), nullable=False),
    Column("to_queue", ascii_text(64)),
    Column("requested_by", short_text()),
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


AS_STORED = tuple(map(raw_columns.as_stored, operations.c))
"""The columns of a SELECT whose rows `operation_of` reads."""


def operation_of(dialect: Dialect, row: RowMapping) -> BulkOperation | None:
    """None for a row that cannot be read: other programs and later versions write rows too. It is said once."""
    values = raw_columns.values(operations, row, dialect.parse_timestamp)
    job_id = raw_columns.job_id(values["id"])
    if job_id is None:
        return None
    try:
        request = BulkRequest(
            Verb(values["verb"]), BulkFilter(**json.loads(values["matching"])), values["to_queue"]
        ).checked()
        state = BulkState(values["state"])
    except (ValueError, TypeError, RecursionError, OutboxError) as error:
        _say_unreadable(str(job_id), f"{type(error).__name__}: {error}")
        return None
    return BulkOperation(
        id=job_id,
        request=request,
        by=values["requested_by"],
        state=state,
        **{name: values[name] for name in _KEPT},
    )


_KEPT = ("total", "done", "refused", "reason", "created_at", "started_at", "finished_at")


@lru_cache(1_000)
def _say_unreadable(operation_id: str, why: str) -> None:
    _log.warning("the bulk operation %s cannot be read, and others go on without it: %s", operation_id, why[:500])
