"""Looks at where the jobs of each queue and priority begin: what an idle worker waits for, and where claims begin."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from outbox import clock
from outbox.drivers.base import NextDue
from outbox.drivers.database.claim_scan.cursors import ClaimCursors, PriorityCursor, WorkerCount
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.raw_connection import SqlConnection

_MICROSECONDS = 1_000_000

_BEFORE_ALL = datetime(1000, 1, 1)  # noqa: DTZ001 - in UTC without saying so, as the database's moments are

_SEEN_MICROSECONDS = 60 * _MICROSECONDS
"""A worker that was not heard of for so long does not share the looking any more."""


async def next_due(database: Database, queues: Sequence[str]) -> NextDue:
    """At everything, unless that is dear; then at what can be afforded, and at the rest soon."""
    cursors = database.cursors

    async def read(connection: SqlConnection) -> list[Any]:
        if cursors is None:
            return (await _read(database, connection, queues, ()))[0]
        priority_cursors = cursors.affordable(queues) if cursors.scan_cost.expensive else cursors.cursors_of(*queues)
        rows, seconds = await _read(database, connection, queues, priority_cursors)
        if cursors.needs_census_after(len(priority_cursors), seconds):
            await count_workers(database, connection, cursors, queues)
        _see(priority_cursors, rows)
        cursors.looked(priority_cursors, seconds)
        return rows

    rows = await database.read_plain(read)
    paused = {queue for queue, *_, workers in rows if workers is None}
    due = [float(seconds) for queue, *_, seconds, _ in rows if seconds is not None and queue not in paused]
    if cursors is not None and (pause := cursors.next_look(queues)) is not None:
        due.append(pause)
    idle = sum(workers for *_, workers in rows if workers is not None)
    return NextDue(max(0.0, min(due)) if due else None, max(1, int(idle)))


async def probe_heads(
    database: Database,
    connection: SqlConnection,
    cursors: ClaimCursors,
    queues: Sequence[str],
    priority_cursors: Collection[PriorityCursor],
) -> set[PriorityCursor]:
    """Which of the ``priority_cursors`` have something that may be claimable. They are moved to where that begins."""
    if cursors.needs_census:
        await count_workers(database, connection, cursors, queues)
    rows, seconds = await _read(database, connection, queues, priority_cursors)
    cursors.looked(priority_cursors, seconds)
    return _see(priority_cursors, rows)


async def _read(
    database: Database, connection: SqlConnection, queues: Sequence[str], priority_cursors: Iterable[PriorityCursor]
) -> tuple[list[Any], float]:
    """The rows, and the seconds that it took."""
    statement = database.dialect.next_due(len(queues), _SEEN_MICROSECONDS)
    parameters = database.dialect.look_parameters(
        [(cursor.queue, cursor.priority) for cursor in priority_cursors], queues
    )
    begun = clock.now()
    rows = list(await connection.exec_driver_sql(statement, parameters))
    return rows, clock.now() - begun


def moment_or_never(value: Any) -> Any:
    """A moment of a row as the marks can compare it. Servers keep dates that are none, which drivers return as text:
    they are before all others."""
    return value if type(value) is datetime else _BEFORE_ALL


def _see(priority_cursors: Iterable[PriorityCursor], rows: Iterable[Any]) -> set[PriorityCursor]:
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
    database: Database, connection: SqlConnection, cursors: ClaimCursors, queues: Sequence[str]
) -> None:
    """Let the marks know how many there are. A queue that nobody names, such as that of a relay, is everybody's."""
    begun = clock.now()
    rows = await connection.exec_driver_sql(
        database.dialect.count_workers(len(queues), _SEEN_MICROSECONDS), tuple(queues)
    )
    [(everybody, naming)] = list(rows)
    cursors.counted(WorkerCount(max(1, int(naming or everybody)), clock.now() - begun))
