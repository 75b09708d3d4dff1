"""The jobs of each queue, counted at a bounded cost: by ranges of the claim index, none of them to its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import PRIORITY_LIST
from outbox.drivers.database.metrics.rows import LastCount
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.tables import PARKED
from outbox.drivers.values import JobState
from outbox.options import PRIORITIES

EXACT_BELOW = 10_000
"""Fewer entries of one range are counted exactly."""
_FIRST_ENTRIES, _MOST_ENTRIES = 1_500, 10_600
"""Entries of the indexes that a first statement may read of all ranges together, and that all statements may. A server
counts each entry twice: it keeps those of a range, and reads them again."""
_PROBED = EXACT_BELOW // 2
"""What it takes of them to find out whether a range is long: each entry is read once."""
_CERTAINLY_LONG = 10 * EXACT_BELOW
"""Entries that a range had in the last count of all jobs, with which it is still too long to count."""
_FEWEST = 10
_SELECTS = 200
"""In one statement: SQLite joins at most 500."""

FAILED = "failed"
_HELD = JobState.RESERVED.value


class Range(NamedTuple):
    """A part of one queue's jobs that is a range of an index, or one for each priority."""

    queue: Any
    """As it is stored."""
    kind: str


DUE, LATER, PARKED_JOBS, STRANGE, FAILURES = "due", "later", "parked", "strange", "failures"
_LIVE = (DUE, LATER, PARKED_JOBS, STRANGE)
STATES_OF = {
    DUE: (JobState.READY.value, _HELD),
    LATER: (JobState.DELAYED.value, JobState.RETRYING.value, _HELD),
    PARKED_JOBS: (JobState.PARKED.value,),
    STRANGE: (JobState.READY.value, _HELD),
    FAILURES: (FAILED,),
}
"""The states of the jobs in a range, the usual one first."""
_MAIN_STATE = {kind: states[0] for kind, states in STATES_OF.items()}


@dataclass(slots=True)
class Found:
    """What was counted of one queue."""

    states: dict[str, int] = field(default_factory=dict)
    oldest: float | None = None
    """Seconds since the first ready job became available."""
    cut: set[str] = field(default_factory=set)
    """Kinds of ranges that have more entries than were read."""


def bounded_counts(
    dialect: Dialect, scope: FailedJobScope, last: Plan[Sequence[LastCount]]
) -> Plan[tuple[dict[str, Found], Sequence[LastCount]]]:
    """By queue, and the ``last`` counts of all jobs, which are read only where a range is long. Of a range that was
    cut, ``states`` has a lower bound."""
    ranges = yield from _ranges(dialect)
    limit = max(_FEWEST, min(EXACT_BELOW, _FIRST_ENTRIES // max(1, len(ranges))))
    # SQLite looks at its clock for each row of an answer, and any server for each statement. Ranges of due jobs come
    # last, so that a job that becomes due in between is counted twice, and never left out: a worker that stops when its
    # queues are empty goes by these counts.
    counted = yield from _count(dialect, scope, sorted(ranges, key=_is_due), limit)
    left = _MOST_ENTRIES - sum(each.entries for each in counted.values())
    cut = [each for each in ranges if counted[each].entries >= limit]
    counts = (yield from last) if cut else ()
    # Those that are likely to end soon come first.
    for each in cut:
        before = _in_last_count(each, counts)
        if before >= EXACT_BELOW:
            if before >= _CERTAINLY_LONG or left < _PROBED:
                continue
            left -= _PROBED
            if (yield from _is_long(dialect, each)):
                continue
        more = min(EXACT_BELOW, left)
        if more <= limit:
            break
        counted |= yield from _count(dialect, scope, [each], more)
        left -= counted[each].entries
    found = _by_queue(counted)
    yield from _oldest_of_cut(dialect, [each.queue for each in counted if _is_due(each)], found)
    return found, counts


def _is_due(each: Range) -> bool:
    return each.kind == DUE


def _in_last_count(each: Range, counts: Sequence[LastCount]) -> int:
    """How many jobs the range had when all were counted; 0 where that is not known."""
    depth = counts[0].of(raw_columns.text(each.queue)) if counts else None
    if depth is None or each.kind == STRANGE:
        return 0
    return sum(getattr(depth, state) for state in STATES_OF[each.kind] if state != _HELD)


def _is_long(dialect: Dialect, each: Range) -> Plan[bool]:
    """Whether the range has too many entries to count them. Unlike a count, this reads nothing but the index."""
    if each.kind == FAILURES:
        table, where = f"queue_failed_jobs {dialect.failed_hint}", f"queue = {dialect.placeholder}"
    else:
        table, where = f"queue_jobs {dialect.claim_hint}", _of_kind(dialect, each.kind)[2]
    rows = yield (
        f"SELECT 1 FROM {table} WHERE {where} LIMIT 1 OFFSET {EXACT_BELOW - 1}",
        (each.queue,) * where.count(dialect.placeholder),
    )
    return bool(list(rows))


class _Counted(NamedTuple):
    entries: int
    held: int
    """Those of them that a worker holds; of failed jobs, those of other connections."""
    retrying: int
    oldest: float | None
    limit: int


def _ranges(dialect: Dialect) -> Plan[list[Range]]:
    live = yield from queues_in(dialect, f"queue_jobs {dialect.claim_hint}")
    failed = yield from queues_in(dialect, f"queue_failed_jobs {dialect.failed_hint}")
    return [Range(queue, kind) for kind in _LIVE for queue in live] + [Range(queue, FAILURES) for queue in failed]


def queues_in(dialect: Dialect, table: str) -> Plan[list[Any]]:
    """The queues of a table, as they are stored. From one to the next, because servers that know little of a table read
    a whole index for DISTINCT."""
    found: list[Any] = []
    where = ""
    parameters: tuple[Any, ...] = ()
    while True:
        rows = yield f"SELECT queue FROM {table} {where} ORDER BY queue LIMIT 1", parameters
        names = [queue for (queue,) in rows]
        if not names:
            return found
        found += names
        if names[0] is None:
            where = "WHERE queue IS NOT NULL"
        else:
            where, parameters = f"WHERE queue > {dialect.placeholder}", (names[0],)


def _count(dialect: Dialect, scope: FailedJobScope, ranges: Sequence[Range], limit: int) -> Plan[dict[Range, _Counted]]:
    counted: dict[Range, _Counted] = {}
    for start in range(0, len(ranges), _SELECTS):
        part = ranges[start : start + _SELECTS]
        selects = [_select(dialect, scope, each, start + number, limit) for number, each in enumerate(part)]
        sql, parameters = zip(*selects, strict=True)
        rows = yield " UNION ALL ".join(sql), tuple(value for each in parameters for value in each)
        for number, entries, held, retrying, oldest in rows:
            counted[ranges[int(number)]] = _Counted(
                int(entries), int(held or 0), int(retrying or 0), raw_columns.seconds(oldest), limit
            )
    return counted


def _select(dialect: Dialect, scope: FailedJobScope, each: Range, number: int, limit: int) -> Statement:
    if each.kind == FAILURES:
        mine, parameters = scope.as_sql(dialect.placeholder)
        return (
            f"SELECT {number}, COUNT(*), SUM(CASE WHEN mine THEN 0 ELSE 1 END), 0, NULL FROM (SELECT {mine} AS mine "
            f"FROM queue_failed_jobs {dialect.failed_hint} WHERE queue = {dialect.placeholder} LIMIT {limit}) AS found",
            (*parameters, each.queue),
        )
    held, error, where = _of_kind(dialect, each.kind)
    # Not GROUP BY: a server looks up the group of each row, and counts that as a row.
    return (
        f"SELECT {number}, COUNT(*), SUM(CASE WHEN held THEN 1 ELSE 0 END), "
        "SUM(CASE WHEN error IS NULL OR held THEN 0 ELSE 1 END), "
        f"-({dialect.seconds_until('MIN(CASE WHEN held THEN NULL ELSE available_at END)')}) "
        f"FROM (SELECT {held} AS held, {error} AS error, available_at "
        f"FROM queue_jobs {dialect.claim_hint} WHERE {where} LIMIT {limit}) AS found",
        (each.queue,) * where.count(dialect.placeholder),
    )


def _of_kind(dialect: Dialect, kind: str) -> tuple[str, str, str]:
    """Whether a job of such a range is held, its last error, and the condition that makes the range."""
    now = dialect.now
    held = f"COALESCE(reserved_until > {now}, 0)"
    usual = f"{dialect.is_queue} AND priority IN ({PRIORITY_LIST})"
    match kind:
        case "due":
            return held, "NULL", f"{usual} AND available_at <= {now}"
        case "later":
            return held, "last_error_at", f"{usual} AND available_at > {now} AND available_at < '{PARKED}'"
        case "parked":
            return "0", "NULL", f"{usual} AND available_at >= '{PARKED}'"
        case _:
            # No claim meets them: workers move them to the failed jobs.
            return held, "NULL", dialect.unusual


def _by_queue(counted: dict[Range, _Counted]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for each, (entries, held, retrying, oldest, limit) in counted.items():
        of_queue = found.setdefault(raw_columns.text(each.queue), Found())
        numbers = {_MAIN_STATE[each.kind]: entries - held - retrying, JobState.RETRYING.value: retrying}
        if each.kind != FAILURES:
            numbers[_HELD] = held
        for state, number in numbers.items():
            of_queue.states[state] = of_queue.states.get(state, 0) + number
        if _MAIN_STATE[each.kind] == JobState.READY and oldest is not None:
            of_queue.oldest = max(0.0, oldest, of_queue.oldest or 0.0)
        if entries >= limit:
            of_queue.cut.add(each.kind)
    return found


def _oldest_of_cut(dialect: Dialect, queues: Iterable[Any], found: dict[str, Found]) -> Plan[None]:
    """The oldest job is the first of one of the priorities, which may not have been read."""
    for queue in queues:
        of_queue = found[raw_columns.text(queue)]
        if DUE not in of_queue.cut:
            continue
        firsts = [dialect.first(dialect.placeholder, str(priority)) for priority in PRIORITIES]
        selects = " UNION ALL ".join(f"SELECT {first} AS moment" for first in firsts)
        rows = yield (
            f"SELECT -({dialect.seconds_until('MIN(moment)')}) FROM ({selects}) AS firsts",
            (queue,) * len(firsts),
        )
        of_queue.oldest = next((max(0.0, float(oldest)) for (oldest,) in rows if oldest is not None), None)
