"""Rows of `queue_metrics`, and what is in them as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.metrics.table import Period
from outbox.drivers.metrics import Activity, DepthPoint, MetricPoint
from outbox.histogram import Histogram
from outbox.ids import JobId, new_job_id

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTS = ("ready", "delayed", "retrying", "reserved", "parked", "failed")
_INSERTED_AT_ONCE = 200
_SETTLED = '{"settled":'
"""How `dump_activity` begins."""
_SETTLED_LENGTH = 400
"""Characters that have all counts of attempts."""
_DECODER = json.JSONDecoder()


class NewRow(NamedTuple):
    """``begins_at`` is an SQL expression; ``period`` is a `Period` or `ROLLUP`."""

    period: int
    begins_at: str
    queue: str
    name: str
    data: str
    id: JobId


def new_row(period: Period, begins_at: str, queue: str, name: str, data: str) -> NewRow:
    return NewRow(period, begins_at, queue, name, data, new_job_id())


def insert(dialect: Dialect, rows: Sequence[NewRow]) -> Plan[None]:
    """It may be done twice."""
    for start in range(0, len(rows), _INSERTED_AT_ONCE):
        values: list[str] = []
        parameters: list[Any] = []
        for row in rows[start : start + _INSERTED_AT_ONCE]:
            key, more = dialect.id_list([row.id.bytes])
            values.append(f"({key}, {int(row.period)}, {row.begins_at}, {dialect.placeholders(3)})")
            parameters += (*more, row.queue, row.name, row.data)
        yield (
            "INSERT INTO queue_metrics (id, period, begins_at, queue, name, data) "
            f"VALUES {', '.join(values)} {dialect.keep_existing('queue_metrics', 'id')}",
            tuple(parameters),
        )


class Stored(NamedTuple):
    """A row as it is read."""

    key: bytes
    period: Period
    begins_at: datetime
    queue: str
    name: str
    data: Any

    def point(self) -> MetricPoint:
        return point_of(self.begins_at, self.period, self.queue, self.name, load_activity(self.data))


def point_of(at: datetime, period: Period, queue: str, name: str, activity: Activity) -> MetricPoint:
    return MetricPoint(at, period.seconds, queue, name, dict(activity.settled), activity.wait, activity.run)


def select(dialect: Dialect, where: str, parameters: Sequence[Any], order: str = "") -> Plan[list[Stored]]:
    rows = yield (
        f"SELECT id, period, begins_at, queue, name, data FROM queue_metrics WHERE {where} {order}",
        tuple(parameters),
    )
    return [_stored(dialect, row) for row in rows if isinstance(row[0], bytes | bytearray)]


def _stored(dialect: Dialect, row: Any) -> Stored:
    key, period, begins_at, queue, name, data = row
    return Stored(
        bytes(key),
        Period.of(period),
        dialect.parse_timestamp(begins_at),
        raw_columns.text(queue),
        raw_columns.text(name),
        _loaded(data),
    )


def dump_activity(activity: Activity) -> str:
    return dump(activity_values(activity))


def activity_values(activity: Activity) -> dict[str, Any]:
    """As JSON can hold it, in the order that `_SETTLED` expects."""
    return {"settled": dict(activity.settled), "wait": activity.wait.dump(), "run": activity.run.dump()}


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def load_activity(data: Any) -> Activity:
    """What is not as `dump_activity` makes it is left out."""
    known = data if isinstance(data, dict) else {}
    settled = known.get("settled")
    counts = {
        str(outcome): count
        for outcome, count in (settled.items() if isinstance(settled, dict) else ())
        if type(count) is int and count > 0
    }
    return Activity(Counter(counts), Histogram.load(known.get("wait")), Histogram.load(known.get("run")))


def dump_depths(depths: Sequence[DepthPoint], seconds: float) -> str:
    """``seconds`` is how long the count took."""
    queues = {each.queue: {**{name: getattr(each, name) for name in _COUNTS}, "oldest": each.oldest} for each in depths}
    return dump({"seconds": round(seconds, 6), "queues": queues})


def load_depths(at: datetime, data: Any) -> list[DepthPoint]:
    """What is not as `dump_depths` makes it is left out."""
    known = data.get("queues") if isinstance(data, dict) else None
    return [
        DepthPoint(at, queue, **{name: raw_columns.number(each.get(name)) for name in _COUNTS}, oldest=_oldest(each))
        for queue, each in (known.items() if isinstance(known, dict) else ())
        if isinstance(each, dict)
    ]


def count_seconds(data: Any) -> float:
    """How long a count took, of what `dump_depths` has made."""
    seconds = data.get("seconds") if isinstance(data, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _oldest(depth: Mapping[str, Any]) -> float | None:
    oldest = depth.get("oldest")
    return float(oldest) if isinstance(oldest, int | float) else None


def greatest(depths: Sequence[DepthPoint]) -> list[DepthPoint]:
    """Of several counts, the greatest numbers of each queue, at the time of the first."""
    found: dict[str, DepthPoint] = {}
    for each in depths:
        other = found.setdefault(each.queue, each)
        counts = {name: max(getattr(each, name), getattr(other, name)) for name in _COUNTS}
        oldest = max((value for value in (each.oldest, other.oldest) if value is not None), default=None)
        found[each.queue] = DepthPoint(other.at, each.queue, **counts, oldest=oldest)
    return list(found.values())


def ends_in(dialect: Dialect, queues: Sequence[str], since: float) -> Plan[dict[str, list[MetricPoint]]]:
    """How the attempts of each of these queues ended in the last ``since`` seconds, without waits and runs: those are
    most of a row, and counts do not need them."""
    rows = yield (
        f"SELECT queue, period, begins_at, SUBSTR(data, 1, {_SETTLED_LENGTH}) FROM queue_metrics "
        f"WHERE queue IN ({dialect.placeholders(len(queues))}) AND begins_at >= {dialect.seconds_from_now(-since)}",
        tuple(queues),
    )
    found: dict[str, list[MetricPoint]] = {}
    for name, period, begins_at, text in rows:
        at, queue, known = dialect.parse_timestamp(begins_at), raw_columns.text(name), Period.of(period)
        settled = load_activity({"settled": _settled(raw_columns.text(text))}).settled
        point = MetricPoint(at, known.seconds, queue, "", dict(settled), Histogram(), Histogram())
        found.setdefault(queue, []).append(point)
    return found


def _settled(text: str) -> Any:
    """The counts at the beginning of what `dump_activity` makes; None of what something else has made."""
    if not text.startswith(_SETTLED):
        return None
    try:
        return _DECODER.raw_decode(text, len(_SETTLED))[0]
    except ValueError:
        return None


class LastCount(NamedTuple):
    """The last count of all jobs."""

    age: float
    """Seconds."""
    seconds: float
    """How long it took."""
    depths: list[DepthPoint]

    def of(self, queue: str) -> DepthPoint | None:
        return next((depth for depth in self.depths if depth.queue == queue), None)


def last_counts(dialect: Dialect, limit: int) -> Plan[list[LastCount]]:
    """The last one first."""
    age = dialect.seconds_until("begins_at")
    found = yield (
        f"SELECT -({age}), begins_at, data FROM queue_metrics WHERE queue = '' ORDER BY begins_at DESC LIMIT {limit}",
        (),
    )
    counts: list[LastCount] = []
    for seconds, begins_at, text in found:
        data = _loaded(text)
        depths = load_depths(dialect.parse_timestamp(begins_at), data)
        counts.append(LastCount(max(0.0, float(seconds)), count_seconds(data), depths))
    return counts


def _loaded(text: Any) -> Any:
    try:
        return json.loads(raw_columns.text(text))
    except (ValueError, RecursionError):
        return None
