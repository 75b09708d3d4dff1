"""Probes: reads of the first job of each queue and priority, without locks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from outbox import clock
from outbox.drivers.database.claim_scan.cursors import ClaimCursors, PriorityCursor, WorkerCount
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect

_BEFORE_ALL = datetime(1000, 1, 1)  # noqa: DTZ001 - in UTC without saying so, as the database's moments are


async def probe_heads(
    dialect: Dialect,
    connection: SqlConnection,
    cursors: ClaimCursors,
    queues: Sequence[str],
    priority_cursors: Collection[PriorityCursor],
) -> set[PriorityCursor]:
    """Which of the ``priority_cursors`` have due jobs. Each is moved to its first."""
    if cursors.needs_worker_count:
        await count_workers(dialect, connection, cursors, queues)
    rows, seconds = await probe(dialect, connection, queues, priority_cursors)
    cursors.probed(priority_cursors, seconds)
    return move_to_heads(priority_cursors, rows)


async def probe(
    dialect: Dialect, connection: SqlConnection, queues: Sequence[str], priority_cursors: Iterable[PriorityCursor]
) -> tuple[list[Any], float]:
    """Rows of `Dialect.next_due`, and the seconds that they took."""
    statement = dialect.next_due(len(queues))
    parameters = dialect.probe_parameters([(cursor.queue, cursor.priority) for cursor in priority_cursors], queues)
    begun = clock.now()
    rows = list(await connection.exec_driver_sql(statement, parameters))
    return rows, clock.now() - begun


def moment_or_never(value: Any) -> Any:
    """A moment of a row as cursors can compare it. Servers keep dates that are none, which drivers return as text: they
    come before all others."""
    return value if type(value) is datetime else _BEFORE_ALL


def move_to_heads(priority_cursors: Iterable[PriorityCursor], rows: Iterable[Any]) -> set[PriorityCursor]:
    """Move cursors to their first jobs, as `probe` has found them. Returns those whose first job is due."""
    firsts = {(queue, priority): (first, now) for queue, priority, first, now, *_ in rows if priority is not None}
    due = set()
    for cursor in priority_cursors:
        first, now = firsts[cursor.queue, cursor.priority]
        first = None if first is None else moment_or_never(first)
        cursor.seen(first, now)
        if first is not None and first <= now:
            due.add(cursor)
    return due


async def count_workers(
    dialect: Dialect, connection: SqlConnection, cursors: ClaimCursors, queues: Sequence[str]
) -> None:
    """Tell the cursors how many workers there are. A queue that no worker names, such as a relay's, counts all."""
    begun = clock.now()
    rows = await connection.exec_driver_sql(dialect.count_workers(len(queues)), tuple(queues))
    [(everybody, naming)] = list(rows)
    cursors.counted(WorkerCount(max(1, int(naming or everybody)), clock.now() - begun))
