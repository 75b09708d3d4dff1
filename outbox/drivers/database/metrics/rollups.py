"""Rollups: one row for each ten minutes, with what all workers did in all queues then.

Charts of a day read them in place of the rows of each minute, queue and class of jobs, which stay: 144 rows and those
of the last minutes, however many queues and classes there are. Workers make one when its time is over and complete. It
has an id of that time, so that two workers make one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.metrics import rows
from outbox.drivers.database.metrics.merging import CLOSED_AFTER
from outbox.drivers.database.metrics.rows import NewRow, Stored
from outbox.drivers.database.metrics.table import ROLLUP, Period
from outbox.drivers.database.tables import EVERY_QUEUE
from outbox.drivers.metrics import Activity, MetricPoint
from outbox.ids import JobId

_SPAN = timedelta(seconds=Period.TEN_MINUTES.seconds)
_DAY = timedelta(days=1)
_PERIODS = ", ".join(str(int(each)) for each in Period)
_ID_END = b"a roll-up!"
"""The ten bytes after the time."""


async def roll_up(database: Database) -> bool:
    """Make the next rollup. Whether its time was over."""
    dialect = database.dialect

    row = await database.read_plain(running(_next, dialect))
    if row is not None:
        await database.write_plain(running(rows.insert, dialect, [row]))
    return row is not None


def _next(dialect: Dialect) -> Plan[NewRow | None]:
    [(now, last)] = yield (
        f"SELECT {dialect.now}, (SELECT MAX(begins_at) FROM queue_metrics WHERE period = {ROLLUP})",
        (),
    )
    now = dialect.parse_timestamp(now)
    begin = None if last is None else dialect.parse_timestamp(last) + _SPAN
    if begin is None or begin < now - _DAY:
        begin = yield from _first(dialect, now - _DAY)
    if begin is None or begin + _SPAN + timedelta(seconds=CLOSED_AFTER) > now:
        return None
    end = begin + _SPAN
    found = yield from _between(dialect, "begins_at >= {mark} AND begins_at < {mark}", (begin, end))
    moment = f"'{begin:%Y-%m-%d %H:%M:%S}.000000'"
    return NewRow(ROLLUP, moment, EVERY_QUEUE, "", _dump(found), _id_of(begin))


def _first(dialect: Dialect, since: datetime) -> Plan[datetime | None]:
    """The beginning of the first ten minutes since then of which anything is known."""
    mark = dialect.placeholder
    firsts = ", ".join(
        f"(SELECT MIN(begins_at) FROM queue_metrics WHERE period = {int(period)} AND begins_at >= {mark})"
        for period in Period
    )
    [moments] = yield f"SELECT {firsts}", (dialect.timestamp(since),) * len(Period)
    first = min((dialect.parse_timestamp(moment) for moment in moments if moment is not None), default=None)
    return None if first is None else first - (first - rows.EPOCH) % _SPAN


def _id_of(begin: datetime) -> JobId:
    milliseconds = (begin - rows.EPOCH) // timedelta(milliseconds=1)
    return JobId(bytes=milliseconds.to_bytes(6) + _ID_END)


def _between(dialect: Dialect, when: str, moments: Sequence[datetime]) -> Plan[list[Stored]]:
    return (
        yield from rows.select(
            dialect,
            f"period IN ({_PERIODS}) AND {when.format(mark=dialect.placeholder)} AND queue <> ''",
            [dialect.timestamp(moment) for moment in moments],
        )
    )


def _dump(found: Sequence[Stored]) -> str:
    activities: dict[tuple[str, str], Activity] = {}
    for each in found:
        activities.setdefault((each.queue, each.name), Activity()).merge(rows.load_activity(each.data))
    return rows.dump([[*key, rows.activity_values(activity)] for key, activity in activities.items()])


def _load(rollup: Stored) -> list[MetricPoint]:
    """What is not as `_dump` makes it is left out."""
    known = rollup.data if isinstance(rollup.data, list) else []
    return [
        rows.point_of(rollup.begins_at, Period.TEN_MINUTES, str(each[0]), str(each[1]), rows.load_activity(each[2]))
        for each in known
        if isinstance(each, list) and len(each) == 3
    ]


def points(dialect: Dialect, since: float) -> Plan[list[MetricPoint]]:
    """What was done in the last ``since`` seconds: by the rollups that there are without a gap, and by the rows of what
    was before and after them."""
    found = yield from rows.select(
        dialect, f"period = {ROLLUP} AND begins_at >= {dialect.seconds_from_now(-since)}", (), "ORDER BY begins_at DESC"
    )
    rollups = _without_gap(found)
    covered: tuple[Any, ...] = (rollups[-1].begins_at, rollups[0].begins_at + _SPAN) if rollups else ()
    when = f"begins_at >= {dialect.seconds_from_now(-since)}"
    if covered:
        when += " AND (begins_at < {mark} OR begins_at >= {mark})"
    others = yield from _between(dialect, when, covered)
    return [*(each.point() for each in others), *(point for each in rollups for point in _load(each))]


def _without_gap(found: Sequence[Stored]) -> list[Stored]:
    """The latest of them, as far as each follows the one before."""
    rollups = list(found[:1])
    for each in found[1:]:
        if each.begins_at + _SPAN != rollups[-1].begins_at:
            break
        rollups.append(each)
    return rollups
