"""The jobs of each queue for an operator: few are counted now, many are known from the last count of all jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.metrics.rows import LastCount, ends_in, last_counts
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.queue_counts import DUE, FAILED, STATES_OF, Found, bounded_counts
from outbox.drivers.database.tables import EVERY_QUEUE
from outbox.drivers.metrics import MetricPoint, moved_on
from outbox.drivers.running_jobs import load_running
from outbox.drivers.values import JobState, QueueCounts

_NO_COUNT = LastCount(0.0, 0.0, [])


async def counts(database: Database, scope: FailedJobScope) -> list[QueueCounts]:
    """In one transaction, so that a job that moves meanwhile is counted in one place, not in two or none. One that only
    becomes due meanwhile can be counted in two."""

    return await database.inspect(running(_counts, database.dialect, scope))


def _counts(dialect: Dialect, scope: FailedJobScope) -> Plan[list[QueueCounts]]:
    found, last = yield from bounded_counts(dialect, scope, last_counts(dialect, 2))
    rows = yield (
        f"SELECT queue FROM queue_pauses WHERE paused_until IS NULL OR paused_until > {dialect.now}",
        (),
    )
    paused = {raw_columns.text(queue) for (queue,) in rows}
    every = EVERY_QUEUE in paused
    for queue in paused - {EVERY_QUEUE}:
        found.setdefault(queue, Found())
    counts = [_exact(queue, found[queue], paused=every or queue in paused) for queue in sorted(found)]
    if not any(each.cut for each in found.values()):
        return [each for each in counts if _is_worth_a_row(each)]
    running = yield from _running(dialect)
    due = [queue for queue, each in found.items() if DUE in each.cut]
    ends = (yield from ends_in(dialect, due, last[1].age)) if due and len(last) > 1 else {}
    completed: list[QueueCounts] = []
    for each in filter(_is_worth_a_row, counts):
        cut = found[each.queue].cut
        moved = _moved_on(each.queue, last, ends.get(each.queue, ())) if DUE in cut else None
        completed.append(_completed(each, cut, last[0] if last else None, running.get(each.queue, 0), moved))
    return completed


def _moved_on(queue: str, last: Sequence[LastCount], ends: Sequence[MetricPoint]) -> int | None:
    """How many ready jobs there should be by now: those of the last count, and what has come since as fast as between
    the last two counts, without what workers say has ended."""
    after, before = (count.of(queue) for count in (*last, _NO_COUNT, _NO_COUNT)[:2])
    if after is None or before is None:
        return None if after is None else after.ready
    return moved_on(before, after, ends, last[0].age)


def _is_worth_a_row(counts: QueueCounts) -> bool:
    """Failed jobs of other connections may be all that there is of a queue."""
    live = counts.ready or counts.delayed or counts.retrying or counts.reserved or counts.parked
    return bool(live or counts.failed or counts.paused)


def _exact(queue: str, found: Found, *, paused: bool) -> QueueCounts:
    states = found.states
    return QueueCounts(
        queue=queue,
        ready=states.get(JobState.READY, 0),
        delayed=states.get(JobState.DELAYED, 0),
        reserved=states.get(JobState.RESERVED, 0),
        failed=states.get(FAILED, 0),
        oldest=found.oldest,
        paused=paused,
        retrying=states.get(JobState.RETRYING, 0),
        parked=states.get(JobState.PARKED, 0),
    )


def _completed(
    counts: QueueCounts, cut: Iterable[str], last: LastCount | None, running: int, moved: int | None
) -> QueueCounts:
    """``counts`` with the numbers of the last count where more jobs are than were read. What was read is a lower bound
    of them, and the jobs that workers say they run are some of those that are reserved."""
    states = {state for kind in cut for state in STATES_OF[kind]}
    if not states:
        return counts
    depth = last.of(counts.queue) if last is not None else None
    numbers = {state: getattr(counts, state) for state in states}
    if JobState.RESERVED in numbers:
        numbers["reserved"] = max(numbers["reserved"], running)
    if depth is None or last is None:
        return replace(counts, **numbers, at_least=True)
    numbers = {state: max(number, getattr(depth, state)) for state, number in numbers.items()}
    if moved is not None:
        numbers["ready"] = max(counts.ready, moved)
    return replace(counts, **numbers, age=last.age)


def _running(dialect: Dialect) -> Plan[dict[str, int]]:
    """The jobs that workers have named in their heartbeats, by queue."""
    rows = yield f"SELECT running_jobs FROM queue_workers WHERE {dialect.seen_lately}", ()
    running: dict[str, int] = {}
    for (text,) in rows:
        for job in load_running(raw_columns.text(text) or None):
            running[job.queue] = running.get(job.queue, 0) + 1
    return running
