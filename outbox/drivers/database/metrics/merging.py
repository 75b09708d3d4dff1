"""Upkeep of metrics: rows of the same time become one, of ever longer times the older they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.metrics import rows
from outbox.drivers.database.metrics.rows import Stored, new_row
from outbox.drivers.database.metrics.table import ROLLUP, Period
from outbox.drivers.metrics import Activity

_DAY = 86_400
CLOSED_AFTER = 180
"""Seconds after its end when workers have written all that they will write of a span of time."""
_MERGED_AT_ONCE = 1_000
"""Rows of one transaction."""


class _Step(NamedTuple):
    """Rows of ``source`` that are older than ``after`` seconds become rows of ``target``."""

    source: Period
    target: Period
    after: float


_STEPS = (
    _Step(Period.WRITTEN, Period.MINUTE, CLOSED_AFTER),
    _Step(Period.MINUTE, Period.TEN_MINUTES, _DAY + Period.TEN_MINUTES.seconds),
    _Step(Period.TEN_MINUTES, Period.HOUR, 7 * _DAY + Period.HOUR.seconds),
)
_KEPT_SECONDS = 90 * _DAY
_ROLLUPS_KEPT_SECONDS = _DAY + Period.HOUR.seconds


async def merge_step(database: Database) -> bool:
    """Merge the oldest rows that are due, of one span of time, and remove some that are too old. Whether there was
    any."""
    for step in _STEPS:
        if await _merge_oldest(database, step):
            return True
    return await database.write_plain(running(_remove_old, database.dialect))


async def _merge_oldest(database: Database, step: _Step) -> bool:
    dialect = database.dialect
    oldest = await database.read_plain(running(_oldest, dialect, step))
    if oldest is None:
        return False
    begin = oldest - (oldest - rows.EPOCH) % timedelta(seconds=step.target.seconds)
    return await database.write_plain(running(_merge, dialect, step, begin))


def _oldest(dialect: Dialect, step: _Step) -> Plan[datetime | None]:
    """The time of the oldest row that is due."""
    found = yield (
        f"SELECT begins_at FROM queue_metrics WHERE period = {int(step.source)} "
        f"AND begins_at < {dialect.seconds_from_now(-step.after)} ORDER BY begins_at LIMIT 1",
        (),
    )
    return next((dialect.parse_timestamp(moment) for (moment,) in found), None)


def _merge(dialect: Dialect, step: _Step, begin: datetime) -> Plan[bool]:
    """Rows that another worker is merging are left to it: several merged rows of one span are as good as one."""
    end = begin + timedelta(seconds=step.target.seconds)
    span = f"period = {int(step.source)} AND begins_at >= {dialect.placeholder} AND begins_at < {dialect.placeholder}"
    found = yield from rows.select(
        dialect,
        span,
        (dialect.timestamp(begin), dialect.timestamp(end)),
        f"ORDER BY begins_at LIMIT {_MERGED_AT_ONCE} {dialect.skip_locked}",
    )
    if not found:
        return False
    moment = f"'{begin:%Y-%m-%d %H:%M:%S}.000000'"
    new = [new_row(step.target, moment, queue, name, data) for (queue, name), data in _merged(found).items()]
    yield from rows.insert(dialect, new)
    yield from _delete(dialect, [each.key for each in found])
    return True


def _merged(found: Sequence[Stored]) -> dict[tuple[str, str], str]:
    """The data of the merged rows, by queue and name."""
    activities: dict[tuple[str, str], Activity] = {}
    for each in found:
        if each.queue:
            activities.setdefault((each.queue, each.name), Activity()).merge(rows.load_activity(each.data))
    data = {key: rows.dump_activity(activity) for key, activity in activities.items()}
    counts = [each for each in found if not each.queue]
    if counts:
        depths = [depth for each in counts for depth in rows.load_depths(each.begins_at, each.data)]
        data["", ""] = rows.dump_depths(rows.greatest(depths), max(rows.count_seconds(each.data) for each in counts))
    return data


def _remove_old(dialect: Dialect) -> Plan[bool]:
    found = yield (
        "SELECT id FROM queue_metrics WHERE "
        f"(period = {int(Period.HOUR)} AND begins_at < {dialect.seconds_from_now(-_KEPT_SECONDS)}) OR "
        f"(period = {ROLLUP} AND begins_at < {dialect.seconds_from_now(-_ROLLUPS_KEPT_SECONDS)}) "
        f"LIMIT {_MERGED_AT_ONCE}",
        (),
    )
    keys = [bytes(key) for (key,) in found]
    if keys:
        yield from _delete(dialect, keys)
    return bool(keys)


def _delete(dialect: Dialect, keys: Sequence[bytes]) -> Plan[None]:
    listed, parameters = dialect.id_list(sorted(keys))
    yield f"DELETE FROM queue_metrics WHERE id IN ({listed})", parameters
