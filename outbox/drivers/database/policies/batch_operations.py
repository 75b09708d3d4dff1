"""What operators see of batches and do to them."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database import raw_columns
from outbox.drivers.database.audit import record
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, run, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import batch_statements as statements
from outbox.drivers.values import BatchStatus
from outbox.ids import JobId
from outbox.policies.batch import is_over

_PORTION = 1_000
_MOST_OUTSTANDING, _MOST_FAILED = 1_000, 10_000
"""Members that are counted of one batch."""
_OF_ALL, _FEWEST = 5_000, 20
"""Members of a kind that are counted of all batches of a list together, and at least of each."""


async def latest(database: Database, limit: int) -> list[BatchStatus]:
    async def look(connection: SqlConnection) -> list[JobId]:
        rows = await connection.exec_driver_sql(f"SELECT id FROM queue_batches ORDER BY id DESC LIMIT {int(limit)}", ())
        return [found for (batch_id,) in rows if (found := raw_columns.job_id(batch_id)) is not None]

    return await statuses(database, await database.read_plain(look))


async def statuses(database: Database, batch_ids: Sequence[JobId]) -> list[BatchStatus]:
    """How far each batch is, at a bounded cost for all of them together."""
    share = max(_FEWEST, _OF_ALL // max(1, len(batch_ids)))
    bounds = (_MOST_OUTSTANDING, _MOST_FAILED) if len(batch_ids) == 1 else (min(share, _MOST_OUTSTANDING), share)

    async def look(connection: SqlConnection) -> list[BatchStatus]:
        found = [await _status(database, connection, each, *bounds) for each in batch_ids]
        return [each for each in found if each is not None]

    return await database.read_plain(look)


async def _status(
    database: Database, connection: SqlConnection, batch_id: JobId, most_outstanding: int, most_failed: int
) -> BatchStatus | None:
    dialect = database.dialect
    row = await run(statements.read_batch(dialect, batch_id), connection)
    if row is None:
        return None
    failed, added, outstanding = await run(
        statements.counted(dialect, batch_id, most_outstanding, most_failed), connection
    )
    listed, parameters = dialect.id_list([batch_id.bytes])
    times = await connection.exec_driver_sql(
        f"SELECT created_at, finished_at FROM queue_batches WHERE id = {listed}", parameters
    )
    [(created, finished)] = list(times)
    total = row.total + added
    over = is_over(failed, total, row.plan.allow_failures)
    if row.finished and failed == most_failed and not over and not row.cancelled:
        # It allows more than were counted.
        every, _, _ = await run(statements.counted(dialect, batch_id, 1), connection)
        over = is_over(every, total, row.plan.allow_failures)
    state = "cancelled" if row.cancelled else "open" if not row.finished else "failed" if over else "finished"
    return BatchStatus(
        batch_id,
        row.plan.name,
        state,
        total,
        failed,
        outstanding,
        row.plan.allow_failures,
        row.plan.parent,
        dialect.parse_timestamp(created),
        None if finished is None else dialect.parse_timestamp(finished),
        failed_at_least=failed == most_failed,
        outstanding_at_least=outstanding == most_outstanding,
    )


async def members(database: Database, batch_id: JobId, *, failed: bool, after: JobId | None) -> list[JobId]:
    table = statements.FAILURES if failed else statements.MEMBERS
    listed, parameters = database.dialect.id_list([batch_id.bytes])
    last, more = database.dialect.id_list([after.bytes if after is not None else bytes(16)])

    async def look(connection: SqlConnection) -> list[JobId]:
        rows = await connection.exec_driver_sql(
            f"SELECT member_id FROM {table} WHERE batch_id = {listed} AND member_id > {last} "
            f"ORDER BY member_id LIMIT {_PORTION}",
            (*parameters, *more),
        )
        return [JobId(bytes=bytes(member)) for (member,) in rows]

    return await database.read_plain(look)


async def mark_cancelled(database: Database, batch_id: JobId) -> bool:
    return await database.write_plain(running(_mark_cancelled, database.dialect, batch_id))


def _mark_cancelled(dialect: Dialect, batch_id: JobId) -> Plan[bool]:
    listed, parameters = dialect.id_list([batch_id.bytes])
    marked = yield (
        f"UPDATE queue_batches SET cancelled_at = {dialect.now} "
        f"WHERE id = {listed} AND cancelled_at IS NULL AND finished_at IS NULL",
        parameters,
    )
    if marked.rowcount:
        # Its jobs count, and they may all be in Redis.
        yield from record(dialect, 0, even_none=True)
    return bool(marked.rowcount)
