"""A tick: the jobs of a schedule that is due, and its next time, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.syntax import NO_MOMENT
from outbox.drivers.database.jobs.insert import own_insert_statements
from outbox.drivers.database.policies.leaving import removed
from outbox.drivers.database.policies.schedule_tables import schedule_ticks, schedules
from outbox.drivers.database.policies.schedules import LiveJob, live_jobs, lock_live
from outbox.drivers.schedules import DueSchedule, Templates
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope, Headers
from outbox.events import Event, ScheduleSkipped, ScheduleTicked
from outbox.ids import JobId, new_job_id
from outbox.policies.schedule import Definition, Due, JobTemplate, Overlap, Tick, TickAction, due, jitter, on_overlap
from outbox.settlement import Outcome
from outbox.wakeups.base import CANCELLED

_SCHEDULES, _TICKS = schedules.name, schedule_ticks.name
_NEXT = 100
_PARKED = datetime(9999, 12, 31, tzinfo=UTC)


def next_due(dialect: Dialect, known: Collection[str]) -> Plan[list[DueSchedule]]:
    declared = f"OR declaration IN ({dialect.placeholders(len(known))})" if known else ""
    rows = yield (
        f"SELECT name, {dialect.seconds_until('next_at')} FROM {_SCHEDULES} "
        f"WHERE next_at IS NOT NULL AND (declaration IS NULL {declared}) ORDER BY next_at LIMIT {_NEXT}",
        tuple(known),
    )
    # What holds no date is due: its tick gives it one.
    return [DueSchedule(str(name), raw_columns.seconds(seconds) or 0.0) for name, seconds in rows]


class _Row(NamedTuple):
    name: str
    definition: Definition
    declaration: str | None
    next_at: datetime | None
    last_tick: datetime | None
    now: datetime


def _lock(dialect: Dialect, name: str, lock: str) -> Plan[_Row | None]:
    rows = yield (
        f"SELECT definition, declaration, next_at, last_tick, {dialect.now} FROM {_SCHEDULES} "
        f"WHERE name = {dialect.placeholder} {lock}",
        (name,),
    )
    for definition, declaration, next_at, last_tick, now in rows:
        moment = dialect.parse_timestamp
        return _Row(
            name,
            Definition.load(definition),
            declaration,
            None if next_at is None else moment(next_at),
            None if last_tick is None else moment(last_tick),
            moment(now),
        )
    return None


@dataclass(slots=True)
class Ticked:
    """What came of a tick."""

    news: PolicyNews = field(default_factory=PolicyNews)
    ticked: list[Event] = field(default_factory=list)
    skipped: list[Event] = field(default_factory=list)
    jobs: list[tuple[datetime, JobId]] = field(default_factory=list)

    def skip(self, row: _Row, tick: datetime, reason: str) -> None:
        self.skipped.append(ScheduleSkipped(row.name, tick, reason))


def tick(dialect: Dialect, name: str, templates: Templates) -> Plan[Ticked | None]:
    """None where another transaction has locked the schedule, or it is not there any more."""
    row = yield from _lock(dialect, name, dialect.skip_locked)
    if row is None:
        return None
    done = Ticked()
    if row.next_at is None or row.next_at > row.now:
        return done
    definition = row.definition
    if row.next_at <= NO_MOMENT:
        done.skip(row, row.now, "its row held no date for its next tick")
        yield _moved(dialect, row, Due((), definition.timetable.after(row.now)), done)
        return done
    found = due(definition.timetable, row.next_at, row.now, definition.misfire, definition.grace)
    if found.missed is not None:
        done.skip(row, found.missed, f"it was missed, and misfire is {definition.misfire}")
    ticks = yield from _without_job(dialect, name, found.ticks)
    if ticks:
        yield from _insert_ticks(dialect, row, _template(row, templates), ticks, done)
    yield _moved(dialect, row, found, done)
    return done


def _template(row: _Row, templates: Templates) -> JobTemplate:
    make = templates.get(row.name) if row.declaration is not None else None
    template = row.definition.job if make is None else make()
    assert template is not None  # noqa: S101 - for the type checker: no definition is stored without its job
    return template


def _moved(dialect: Dialect, row: _Row, found: Due, done: Ticked) -> tuple[str, tuple[object, ...]]:
    last = done.jobs[-1][0] if done.jobs else row.last_tick
    return (
        f"UPDATE {_SCHEDULES} SET next_at = {dialect.placeholder}, last_tick = {dialect.placeholder} "
        f"WHERE name = {dialect.placeholder}",
        (
            None if found.next_at is None else dialect.timestamp(found.next_at),
            None if last is None else dialect.timestamp(last),
            row.name,
        ),
    )


def _without_job(dialect: Dialect, name: str, ticks: Sequence[datetime]) -> Plan[list[datetime]]:
    """Those ticks that have become no job yet."""
    if not ticks:
        return []
    rows = yield (
        f"SELECT tick FROM {_TICKS} WHERE name = {dialect.placeholder} "
        f"AND tick IN ({dialect.placeholders(len(ticks))})",
        (name, *map(dialect.timestamp, ticks)),
    )
    known = {dialect.parse_timestamp(each) for (each,) in rows}
    return [each for each in ticks if each not in known]


def _insert_ticks(
    dialect: Dialect, row: _Row, template: JobTemplate, ticks: Sequence[datetime], done: Ticked
) -> Plan[None]:
    overlap = row.definition.overlap
    live: list[LiveJob] = []
    if overlap is not Overlap.ALLOW:
        live = yield from live_jobs(dialect, row.name)
    if overlap is Overlap.QUEUE_ONE:
        live = yield from lock_live(dialect, row.name, live)
    waiting, running = any(not job.started for job in live), any(job.started for job in live)
    if overlap is Overlap.CANCEL:
        for each in ticks[:-1]:
            done.skip(row, each, "a later tick takes its place")
        ticks = ticks[-1:]
    inserted: list[Envelope] = []
    for each in ticks:
        action = on_overlap(overlap, waiting=waiting, running=running)
        if action is TickAction.SKIP:
            done.skip(row, each, "the job of an earlier tick is not finished")
            continue
        if action is TickAction.CANCEL_AND_INSERT:
            yield from _cancel(dialect, live, done)
        previous = done.jobs[-1][0] if done.jobs else row.last_tick
        envelope = _envelope(row, template, each, previous, parked=action is TickAction.INSERT_PARKED)
        inserted.append(envelope)
        done.jobs.append((each, envelope.id))
        waiting = True
    yield from _write(dialect, row, inserted, done)


def _cancel(dialect: Dialect, live: Sequence[LiveJob], done: Ticked) -> Plan[None]:
    """Remove the jobs of earlier ticks. The workers of those that run are told after the commit."""
    ids = sorted(job.job_id for job in live)
    yield dialect.held(len(ids), lock=True), tuple(ids)
    done.news += yield from removed(dialect, ids, Outcome.CANCELLED)
    yield dialect.remove_locked(len(ids)), tuple(ids)
    done.news += PolicyNews(frozenset({CANCELLED}))


def _envelope(
    row: _Row, template: JobTemplate, tick: datetime, previous: datetime | None, *, parked: bool = False
) -> Envelope:
    definition = row.definition
    late = tick + jitter(row.name, tick, definition.jitter) - row.now
    header = Tick(schedule=row.name, at=tick, previous=previous, queues=definition.overlap is Overlap.QUEUE_ONE)
    return Envelope(
        new_job_id(),
        template.queue,
        template.name,
        template.priority,
        template.payload,
        Headers.load(template.headers).model_copy(update={"tick": header}).dump(),
        max(0.0, late / timedelta(seconds=1)),
        _PARKED if parked else None,
        template.policies,
    )


def _write(dialect: Dialect, row: _Row, envelopes: Sequence[Envelope], done: Ticked) -> Plan[None]:
    if not envelopes:
        return
    yield from own_insert_statements(dialect, envelopes)
    values: list[object] = []
    for each, job_id in done.jobs:
        values += (row.name, dialect.timestamp(each), job_id.bytes)
        done.ticked.append(ScheduleTicked(row.name, each, job_id))
    one = f"({dialect.placeholders(3)})"
    yield f"INSERT INTO {_TICKS} (name, tick, job_id) VALUES {', '.join([one] * len(done.jobs))}", tuple(values)
    done.news += PolicyNews(frozenset(envelope.queue for envelope in envelopes))


def run_now(dialect: Dialect, name: str, templates: Templates) -> Plan[Ticked | None]:
    """A job at this moment, whatever runs. The next tick stays where it is."""

    def moments(row: _Row) -> list[datetime]:
        return [row.now]

    return (yield from _insert_anyway(dialect, name, moments, templates))


def backfill(dialect: Dialect, name: str, ticks: Sequence[datetime], templates: Templates) -> Plan[Ticked | None]:
    """Jobs of those of these ticks that have passed and had none, whatever runs."""

    def moments(row: _Row) -> list[datetime]:
        return [each for each in ticks if each <= row.now]

    return (yield from _insert_anyway(dialect, name, moments, templates))


def _insert_anyway(
    dialect: Dialect, name: str, moments: Callable[[_Row], list[datetime]], templates: Templates
) -> Plan[Ticked | None]:
    row = yield from _lock(dialect, name, dialect.for_update)
    if row is None:
        return None
    done = Ticked()
    ticks = yield from _without_job(dialect, name, moments(row))
    if ticks:
        template = _template(row, templates)
        envelopes = [_envelope(row, template, each, row.last_tick)._replace(delay=0.0) for each in ticks]
        done.jobs += [(each, envelope.id) for each, envelope in zip(ticks, envelopes, strict=True)]
        yield from _write(dialect, row, envelopes, done)
    return done
