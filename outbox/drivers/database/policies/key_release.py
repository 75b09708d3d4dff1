"""Parked jobs of a key that claims may find again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import job_rows
from outbox.drivers.database.policies import key_statements as statements
from outbox.drivers.database.policies.key_statements import KeyedRow, Parked
from outbox.envelope import Headers
from outbox.policies.keys import Facts, Kind, State, to_let_in

_SPARE = 2
"""Parked jobs that are looked at beyond those that are let in: another transaction may be removing one."""


class Wanted(NamedTuple):
    """So many of the first parked jobs of a key."""

    key: bytes
    kind: Kind
    number: int


class Released(NamedTuple):
    queues: frozenset[str]
    job_ids: Sequence[bytes]


NOTHING_RELEASED = Released(frozenset(), ())


def let_in(dialect: Dialect, rows: Sequence[KeyedRow], ended: Sequence[Headers] = ()) -> Plan[Released]:
    """Let claims find the next jobs of the keys of ``rows``, whose slots are locked. ``ended`` are the headers of jobs
    for whose classes an operator may have set limits."""
    kinds = {row.key: row.kind for row in rows}
    parked = yield from statements.facts_of(dialect, kinds.items(), statements.PARKED)
    crowded = [(key, kind) for key, kind in kinds.items() if parked[key].first_parked is not None]
    if not crowded:
        return NOTHING_RELEASED
    limits = yield from statements.limits_of(dialect, ended)
    sizes = {row.key: limits.get(row.key, row.size) for row in rows}
    facts = yield from statements.facts_of(dialect, crowded, statements.TO_LET_IN)
    wanted = [Wanted(key, kind, count) for key, kind in crowded if (count := to_let_in(kind, facts[key], sizes[key]))]
    return (yield from release(dialect, wanted, facts))


def release(dialect: Dialect, wanted: Sequence[Wanted], facts: Mapping[bytes, Facts]) -> Plan[Released]:
    """One of each of many keys takes as many statements as one of one key."""
    single = {
        parked.seq: each for each in wanted if each.number == 1 and (parked := facts[each.key].first_parked) is not None
    }
    firsts = yield from statements.jobs_at(list(single))
    queues, found = yield from _lock(dialect, firsts)
    reached = {single[row.seq].key for row in found}
    chosen = [(row, single[row.seq].kind) for row in found]
    for each in wanted:
        if each.key in reached:
            continue
        rows = yield from statements.first_parked(dialect, each.key, each.number + _SPARE)
        more, found = yield from _lock(dialect, rows)
        queues |= more
        chosen += [(row, each.kind) for row in found[: each.number]]
    ids = sorted(row.job_id for row, _ in chosen)
    for some in chunked(ids):
        yield dialect.unpark(len(some)), tuple(some)
    # The first of an ordering key is the first, whether it was parked or not.
    ordered = [row.seq for row, kind in chosen if kind is Kind.ORDERING]
    yield from statements.set_state(ordered, State.WAITING)
    yield from statements.set_state([row.seq for row, kind in chosen if kind is not Kind.ORDERING], State.LET_IN)
    return Released(frozenset(queues[job_id] for job_id in ids), ids)


def _lock(dialect: Dialect, rows: Sequence[Parked]) -> Plan[tuple[dict[bytes, str], list[Parked]]]:
    """The queues of those of ``rows`` whose jobs could be locked, and those rows. An application may have removed a
    job: its row goes."""
    if not rows:
        return {}, []
    queues = yield from job_rows.lock_jobs(dialect, [row.job_id for row in rows])
    missed = [row for row in rows if row.job_id not in queues]
    if missed:
        yield from forget_removed(dialect, missed)
    return queues, [row for row in rows if row.job_id in queues]


def forget_removed(dialect: Dialect, rows: Sequence[Parked]) -> Plan[set[int]]:
    """Delete those of ``rows`` whose jobs are no longer there; return which."""
    there = yield from job_rows.present(dialect, [row.job_id for row in rows])
    gone = [row.seq for row in rows if row.job_id not in there]
    yield from statements.delete_rows(gone)
    return set(gone)
