"""Jobs of schedules: which of them are live, and what their ends mean for the next.

A tick's row is locked by the settlement of its job and by a tick that looks whether that job is live. So a job that is
parked behind another is either seen by the end of that, or sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies.base import Leaving, PolicyRows, Refusal, Returning, Upkeep
from outbox.drivers.database.policies.schedule_tables import schedule_ticks
from outbox.drivers.database.tables import PARKED
from outbox.drivers.values import PolicyNews
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.settlement import ENDS

_TICKS = schedule_ticks.name
_KEPT_SECONDS = 7 * 86_400
_PORTION = 1_000


class LiveJob(NamedTuple):
    """A job of a schedule that is not finished."""

    tick: datetime
    job_id: bytes
    started: bool
    parked: bool
    queue: str


def live_jobs(dialect: Dialect, name: str) -> Plan[list[LiveJob]]:
    """The unfinished jobs of a schedule, in the order of their ticks."""
    rows = yield (
        f"SELECT ticks.tick, jobs.id, jobs.attempts, jobs.available_at >= '{PARKED}', jobs.queue "
        f"FROM {_TICKS} AS ticks JOIN queue_jobs AS jobs ON jobs.id = ticks.job_id "
        f"WHERE ticks.ended_at IS NULL AND ticks.name = {dialect.placeholder} ORDER BY ticks.tick",
        (name,),
    )
    return [
        LiveJob(dialect.parse_timestamp(tick), bytes(job_id), bool(attempts), bool(parked), str(queue))
        for tick, job_id, attempts, parked, queue in rows
    ]


def lock_live(dialect: Dialect, name: str, live: Sequence[LiveJob]) -> Plan[list[LiveJob]]:
    """Wait for settlements of these jobs that are under way. Returns those that are live then."""
    if not live:
        return []
    rows = yield (
        f"SELECT job_id FROM {_TICKS} WHERE name = {dialect.placeholder} "
        f"AND tick IN ({dialect.placeholders(len(live))}) AND ended_at IS NULL {dialect.for_update}",
        (name, *(dialect.timestamp(job.tick) for job in live)),
    )
    left = {bytes(job_id) for (job_id,) in rows}
    return [job for job in live if job.job_id in left]


def unpark_next(dialect: Dialect, name: str) -> Plan[PolicyNews]:
    """Let the first parked job of a schedule run, unless another one is live."""
    live = yield from live_jobs(dialect, name)
    if not live or not all(job.parked for job in live):
        return PolicyNews()
    yield dialect.unpark(1), (live[0].job_id,)
    return PolicyNews(frozenset({live[0].queue}))


async def unpark_following(database: Database, ended: Sequence[Leaving]) -> PolicyNews:
    """Let those jobs run that wait for the end of these, in transactions of their own."""
    names = {tick.schedule for job in ended if (tick := job.headers.tick) is not None and tick.queues}
    news = PolicyNews()
    for name in sorted(names):
        news += await database.write_plain(running(unpark_next, database.dialect, name))
    return news


def _end(dialect: Dialect, name: str, tick: datetime, job_id: bytes) -> Plan[None]:
    yield (
        f"UPDATE {_TICKS} SET ended_at = {dialect.now} WHERE name = {dialect.placeholder} "
        f"AND tick = {dialect.placeholder} AND job_id = {dialect.placeholder}",
        (name, dialect.timestamp(tick), job_id),
    )


class ScheduleRows(PolicyRows):
    policy = Policies.SCHEDULE
    tables = ("queue_schedule_ticks",)

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        ended = [(job.headers.tick, job.job_id) for job in jobs if job.outcome in ENDS]
        ticks = [(tick, job_id) for tick, job_id in ended if tick is not None]
        for tick, job_id in sorted(ticks, key=lambda each: (each[0].schedule, each[0].at)):
            yield from _end(dialect, tick.schedule, tick.at, job_id.bytes)
        news = PolicyNews()
        for name in sorted({tick.schedule for tick, _ in ticks if tick.queues}):
            news += yield from unpark_next(dialect, name)
        return news

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:
        for job in jobs:
            if (tick := job.headers.tick) is not None:
                yield (
                    f"UPDATE {_TICKS} SET ended_at = NULL WHERE name = {dialect.placeholder} "
                    f"AND tick = {dialect.placeholder} AND job_id = {dialect.placeholder}",
                    (tick.schedule, dialect.timestamp(tick.at), job.job_id.bytes),
                )
        return {}

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:  # noqa: ARG002
        yield from ()
        tick = job.headers.tick
        return () if tick is None else (f"schedule: {tick.schedule}, tick of {tick.at:%Y-%m-%d %H:%M:%S} UTC",)

    async def upkeep(self, database: Database) -> Upkeep:
        """Note the ends of jobs that were removed by an application's transaction, let what is parked behind them run,
        and forget old ticks."""
        found = await database.read_plain(running(_neglected, database.dialect))
        news = PolicyNews()
        if found.vanished or found.old:
            await database.write_plain(running(_tidy, database.dialect, found))
        for name in found.parked:
            news += await database.write_plain(running(unpark_next, database.dialect, name))
        return Upkeep(news, 0.0 if len(found.old) == _PORTION else None)


class _Neglected(NamedTuple):
    vanished: list[tuple[str, datetime, bytes]]
    old: list[tuple[str, datetime, bytes]]
    parked: list[str]


def _neglected(dialect: Dialect) -> Plan[_Neglected]:
    rows = yield (
        "SELECT ticks.name, ticks.tick, ticks.job_id, jobs.id IS NOT NULL, 0 "
        f"FROM {_TICKS} AS ticks LEFT JOIN queue_jobs AS jobs ON jobs.id = ticks.job_id "
        f"WHERE ticks.ended_at IS NULL AND (jobs.id IS NULL OR jobs.available_at >= '{PARKED}') "
        f"UNION ALL SELECT * FROM (SELECT name, tick, job_id, 0, 1 FROM {_TICKS} "
        f"WHERE ended_at < {dialect.seconds_from_now(-_KEPT_SECONDS)} LIMIT {_PORTION}) AS old",
        (),
    )
    found = _Neglected([], [], [])
    for name, tick, job_id, is_parked, is_old in rows:
        if is_parked:
            found.parked.append(str(name))
        else:
            kind = found.old if is_old else found.vanished
            kind.append((str(name), dialect.parse_timestamp(tick), bytes(job_id)))
    # What is parked behind a job that vanished waits for nothing else.
    return found._replace(parked=sorted(set(found.parked)))


def _tidy(dialect: Dialect, found: _Neglected) -> Plan[None]:
    for vanished in sorted(found.vanished):
        yield from _end(dialect, *vanished)
    for name, tick, _ in sorted(found.old):
        yield (
            f"DELETE FROM {_TICKS} WHERE name = {dialect.placeholder} AND tick = {dialect.placeholder} "
            "AND ended_at IS NOT NULL",
            (name, dialect.timestamp(tick)),
        )
