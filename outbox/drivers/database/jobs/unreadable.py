"""Rows that no worker can claim or read: the reason, and the move to the failed jobs.

Other programs, operators and permissive servers write rows that outbox would not. Such a row must not hold up other
jobs, and must not be lost: it becomes a failed job as it is, with a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.errors import Fault, classify
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.policies.leaving import removed
from outbox.ids import ID_BYTES, new_job_id
from outbox.options import PRIORITIES, QUEUE_NAME, RELAY_PREFIX
from outbox.policies.attempt_limits import MOST_TRIES
from outbox.settlement import Failure, Outcome, dump_failure

_log = logging.getLogger("outbox.drivers")

_ROWS_PER_STATEMENT, _ROWS_PER_SWEEP = 100, 100
_SHOWN = 200
"""Characters of a value that a reason shows."""


class Unreadable(NamedTuple):
    """A row, and why no worker can run it."""

    key: Any
    """What the dialect finds it by: see `Dialect.row_key`."""
    job_id: Any
    reason: str


def flaw(row: Any) -> str | None:
    """Why a row of `Dialect.claimable` cannot be claimed, or None."""
    name, attempts = row.name, row.attempts
    # Every claimed row passes here, so the usual case is tested first.
    if (
        type(row.id) is bytes
        and len(row.id) == ID_BYTES
        and type(name) is type(row.payload) is type(row.headers) is str
        and type(row.priority) is type(attempts) is int
        and 0 <= attempts <= MOST_TRIES
        and _is_moment(row.available_at)
        and (name.isascii() or raw_columns.is_utf8(name))
    ):
        return None
    if type(row.id) is not bytes or len(row.id) != ID_BYTES:
        return f"the id is not {ID_BYTES} bytes: {_shown(row.id)}"
    for column in ("name", "payload", "headers"):
        value = getattr(row, column)
        if type(value) is not str or (column == "name" and not raw_columns.is_utf8(value)):
            return f"the column {column} holds no text: {_shown(value)}"
    if type(row.priority) is not int:
        return f"the priority is not a whole number from 0 to 9: {_shown(row.priority)}"
    if type(attempts) is not int or not 0 <= attempts <= MOST_TRIES:
        return f"the attempts are not a whole number from 0 to {MOST_TRIES}: {_shown(attempts)}"
    return f"the column available_at holds no date: {_shown(row.available_at)}"


def _is_moment(value: Any) -> bool:
    if type(value) is datetime:
        return True
    if type(value) is not str:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    shown = ascii(value) if value is not None else "NULL"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


async def reject(database: Database, connection: SqlConnection, name: str, rows: Sequence[Unreadable]) -> int:
    """Move rows to the failed jobs of the connection ``name``, in the current transaction. Returns how many.

    An id that is not 16 bytes is replaced by a new one, because every command names jobs by such an id; the reason
    keeps the old one. What the server refuses to move stays where it is, and is logged.
    """
    moved = 0
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        part = rows[start : start + _ROWS_PER_STATEMENT]
        try:
            moved += await _move(database, connection, name, part)
        except Exception as error:
            if classify(error) is not Fault.FINAL:
                raise
            _log.exception("%d rows of queue_jobs can be neither read nor moved to queue_failed_jobs", len(part))
    return moved


async def _move(database: Database, connection: SqlConnection, name: str, rows: Sequence[Unreadable]) -> int:
    dialect = database.dialect
    ids: list[Any] = []
    exceptions: list[Any] = []
    fingerprints: list[Any] = []
    for row in rows:
        good = type(row.job_id) is bytes and len(row.job_id) == ID_BYTES
        ids += (row.key, row.job_id if good else new_job_id().bytes)
        message = f"no worker can read this row: {row.reason}"
        failure = Failure("outbox.errors.InvalidPayload", message, "")
        exceptions += (row.key, dump_failure(failure))
        fingerprints += (row.key, failure.fingerprint)
    keys = [row.key for row in rows]
    ids_of_jobs = [bytes(row.job_id) for row in rows if raw_columns.job_id(row.job_id) is not None]
    await run(removed(dialect, ids_of_jobs, Outcome.FAILED), connection)
    parameters = (name, *ids, *exceptions, *fingerprints, *keys)
    await connection.exec_driver_sql(dialect.copy_unreadable(len(rows)), parameters)
    deleted = await connection.exec_driver_sql(dialect.remove_unreadable(len(rows)), tuple(keys))
    return deleted.rowcount


async def fail_unreadable(database: Database, name: str) -> int:
    """Look for rows that no claim ever meets, and move them to the failed jobs: a priority outside 0 to 9, a queue that
    no worker can be told to drain, no date, or a hold that does not end. Every look is a range of the claim index.

    Returns how many rows were moved.
    """
    moved = 0
    # SQLite sorts what is no text into its index as well.
    queues = [queue for (queue,) in await database.read_plain(_queues(database))]
    for queue in queues:
        while rows := await database.read_plain(_Probe(database, queue).find):

            async def move(connection: SqlConnection, rows: list[Unreadable] = rows) -> int:
                return await reject(database, connection, name, rows)

            done = await database.write_plain(move)
            moved += done
            if done < len(rows) or len(rows) < _ROWS_PER_SWEEP:
                break
    if moved:
        _log.warning("%d rows of queue_jobs that no worker can read were moved to the failed jobs", moved)
    return moved


def _queues(database: Database) -> Any:
    async def read(connection: SqlConnection) -> list[Any]:
        return list(await connection.exec_driver_sql(database.dialect.queues_of_jobs(), ()))

    return read


class _Probe:
    """One look at one queue."""

    def __init__(self, database: Database, queue: Any) -> None:
        self._dialect = database.dialect
        self._queue = queue

    async def find(self, connection: SqlConnection) -> list[Unreadable]:
        queue = self._queue
        if not _can_be_drained(queue):
            statement = self._dialect.rows_of_queue(_ROWS_PER_SWEEP)
            parameters: tuple[Any, ...] = (queue,)
        else:
            statement = self._dialect.unclaimable(_ROWS_PER_SWEEP)
            parameters = (queue,) * statement.count(self._dialect.placeholder)
        rows = self._dialect.unreadable.rows(await connection.exec_driver_sql(statement, parameters))
        return [Unreadable(row.row_key, row.id, self._reason(row)) for row in rows]

    def _reason(self, row: Any) -> str:
        if not _can_be_drained(self._queue):
            return f"no worker can drain a queue of this name: {_shown(self._queue)}"
        if row.priority not in PRIORITIES:
            return f"the priority is not a whole number from 0 to 9: {_shown(row.priority)}"
        held = f"the column reserved_until holds no end of a lease: {_shown(row.reserved_until)}"
        return flaw(row) or _off_range(row) or held


def _off_range(row: Any) -> str | None:
    moment = row.available_at
    if type(moment) is datetime and moment.year < 1000:
        return f"the column available_at holds no date: {_shown(str(moment))}"
    return None


def _can_be_drained(queue: Any) -> bool:
    if type(queue) is not str:
        return False
    return queue.startswith(RELAY_PREFIX) or QUEUE_NAME.fullmatch(queue) is not None
