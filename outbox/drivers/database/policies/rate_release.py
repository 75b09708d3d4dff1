"""Which parked jobs of a limit get the time at which they may start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.policies import job_rows
from outbox.drivers.database.policies import rate_statements as statements
from outbox.drivers.database.policies.rate_statements import RateFacts, Wait
from outbox.policies.rate import SECOND, State
from outbox.policies.rate_limits import Terms

_AT_ONCE = 32
"""Parked jobs that are let in together, where a limit admits several now."""
_ROUNDS = 3
"""How often it looks on behind jobs that an application has removed."""
_CLOCK_STEP = 0.001
"""Seconds. The clock of SQLite has milliseconds: a job is looked at when its time has come, not just before."""


class Released(NamedTuple):
    queues: frozenset[str]
    """Queues in which jobs may start now."""
    delays: Mapping[bytes, float]
    """Seconds until each of the jobs that were let in may start."""


def release(dialect: Dialect, facts: Mapping[bytes, RateFacts]) -> Plan[Released]:
    """Let in the first jobs of limits where nothing is let in. The slots are locked."""
    delays: dict[bytes, float] = {}
    terms = {
        rate: _usable(each.stored) for rate, each in facts.items() if each.parked and not each.let_in and each.stored
    }
    if not terms:
        return Released(frozenset(), delays)
    changed = yield from statements.terms_set(dialect, [each.name for each in terms.values()])
    rows, queues = yield from _first(dialect, terms)
    by_rate: dict[bytes, list[Wait]] = {}
    for row in rows:
        by_rate.setdefault(row.rate, []).append(row)
    for rate, of_rate in by_rate.items():
        stored = terms[rate]
        delays |= _times(of_rate, changed.get(stored.name, stored), facts[rate].state, facts[rate].now)
    for pairs in chunked(sorted(delays.items())):
        values = [value for job_id, delay in pairs for value in (job_id, int(delay * MICROSECONDS))]
        yield dialect.postpone(len(pairs)), (*values, *(job_id for job_id, _ in pairs))
    yield from statements.set_state([row.seq for row in rows if row.job_id in delays], statements.LET_IN)
    return Released(frozenset(queues[job_id] for job_id, delay in delays.items() if not delay), delays)


def _usable(stored: Terms) -> Terms:
    """For what is no limit one that lets in a job at a time: its claim writes the terms that the job has."""
    usable = statements.is_limit(stored.name, stored.rate, stored.burst, stored.align)
    return stored if usable else Terms(name=stored.name, rate="1/s")


def _first(dialect: Dialect, rates: Iterable[bytes]) -> Plan[tuple[list[Wait], dict[bytes, str]]]:
    """The first parked jobs of each rate whose rows could be locked, and their queues. Rows of jobs that are no more
    go."""
    locked: list[Wait] = []
    queues: dict[bytes, str] = {}
    left = set(rates)
    for _ in range(_ROUNDS):
        rows = yield from statements.first_parked(dialect, left, _AT_ONCE)
        if not rows:
            break
        found = yield from job_rows.lock_jobs(dialect, [row.job_id for row in rows])
        missed = [row.job_id for row in rows if row.job_id not in found]
        if missed:
            there = yield from job_rows.present(dialect, missed)
            gone = [row.seq for row in rows if row.job_id not in found and row.job_id not in there]
            yield from statements.delete_waits(gone)
        locked += [row for row in rows if row.job_id in found]
        queues |= found
        left = {row.rate for row in rows} - {row.rate for row in locked}
    return locked, queues


def _times(rows: list[Wait], terms: Terms, state: State, now: int) -> dict[bytes, float]:
    """Those that the limit admits now, and the first that it refuses, with seconds until their time."""
    times: dict[bytes, float] = {}
    for row in rows:
        taken = terms.limit.take(state, now, row.cost)
        if not taken.admitted:
            times[row.job_id] = (taken.retry_at - now) / SECOND + _CLOCK_STEP
            break
        times[row.job_id], state = 0.0, taken.state
    return times
