"""Looks at where the jobs of each queue and priority begin: what an idle worker waits for, and where claims begin."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from outbox import clock
from outbox.drivers.base import Outlook
from outbox.drivers.database.database import Database
from outbox.drivers.database.marks import Census, Lane, Marks
from outbox.drivers.database.wire import Plain

_MICROSECONDS = 1_000_000

_BEFORE_ALL = datetime(1000, 1, 1)  # noqa: DTZ001 - in UTC without saying so, as the database's moments are

_SEEN_MICROSECONDS = 60 * _MICROSECONDS
"""A worker that was not heard of for so long does not share the looking any more."""


async def look(database: Database, queues: Sequence[str]) -> Outlook:
    """At everything, unless that is dear; then at what can be afforded, and at the rest soon."""
    marks = database.marks

    async def read(connection: Plain) -> list[Any]:
        if marks is None:
            return (await _read(database, connection, queues, ()))[0]
        lanes = marks.affordable(queues) if marks.thrift.dear else marks.lanes(*queues)
        rows, seconds = await _read(database, connection, queues, lanes)
        if marks.needs_census_after(len(lanes), seconds):
            await count_workers(database, connection, marks, queues)
        _see(lanes, rows)
        marks.looked(lanes, seconds)
        return rows

    rows = await database.read_plain(read)
    paused = {queue for queue, *_, workers in rows if workers is None}
    due = [float(seconds) for queue, *_, seconds, _ in rows if seconds is not None and queue not in paused]
    if marks is not None and (pause := marks.next_look(queues)) is not None:
        due.append(pause)
    idle = sum(workers for *_, workers in rows if workers is not None)
    return Outlook(max(0.0, min(due)) if due else None, max(1, int(idle)))


async def look_from_heads(
    database: Database, connection: Plain, marks: Marks, queues: Sequence[str], lanes: Collection[Lane]
) -> set[Lane]:
    """Which of the ``lanes`` have something that may be claimable. Their marks are moved to where that begins."""
    if marks.needs_census:
        await count_workers(database, connection, marks, queues)
    rows, seconds = await _read(database, connection, queues, lanes)
    marks.looked(lanes, seconds)
    return _see(lanes, rows)


async def _read(
    database: Database, connection: Plain, queues: Sequence[str], lanes: Iterable[Lane]
) -> tuple[list[Any], float]:
    """The rows, and the seconds that it took."""
    statement = database.dialect.look(len(queues), _SEEN_MICROSECONDS)
    parameters = database.dialect.look_parameters([(lane.queue, lane.priority) for lane in lanes], queues)
    begun = clock.now()
    rows = list(await connection.exec_driver_sql(statement, parameters))
    return rows, clock.now() - begun


def moment_or_never(value: Any) -> Any:
    """A moment of a row as the marks can compare it. Servers keep dates that are none, which drivers return as text:
    they are before all others."""
    return value if type(value) is datetime else _BEFORE_ALL


def _see(lanes: Iterable[Lane], rows: Iterable[Any]) -> set[Lane]:
    firsts = {(queue, priority): (first, now) for queue, priority, first, now, *_ in rows if priority is not None}
    due = set()
    for lane in lanes:
        first, now = firsts[lane.queue, lane.priority]
        first = None if first is None else moment_or_never(first)
        lane.seen(first, now)
        if first is not None and first <= now:
            due.add(lane)
    return due


async def count_workers(database: Database, connection: Plain, marks: Marks, queues: Sequence[str]) -> None:
    """Let the marks know how many there are. A queue that nobody names, such as that of a relay, is everybody's."""
    begun = clock.now()
    rows = await connection.exec_driver_sql(database.dialect.census(len(queues), _SEEN_MICROSECONDS), tuple(queues))
    [(everybody, naming)] = list(rows)
    marks.counted(Census(max(1, int(naming or everybody)), clock.now() - begun))
