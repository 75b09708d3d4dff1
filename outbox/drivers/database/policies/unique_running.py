"""Unique jobs that last until their end: never one beside a running one of its key.

Only claims and settlements touch these rows. A claim skips a row that another one has locked. The first claim of a key
inserts its row. If another claim inserts the same row at this moment, it waits for that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies.base import Candidate, Leave, Leaving, Park, Skip, Verdict
from outbox.drivers.database.policies.unique_tables import MOST_PARKED, State
from outbox.drivers.database.tables import PARKED
from outbox.drivers.values import PolicyNews
from outbox.envelope import Headers
from outbox.ids import ID_BYTES, JobId
from outbox.options import RELAY_PREFIX
from outbox.policies.unique import END, SKIP

_CROWDED = Park(1.0)
"""As many jobs of one key as can be parked are: this one looks again."""


_RUNS = f"(reserved_by IS NOT NULL OR (attempts > 0 AND SUBSTR(queue, 1, 1) = '{RELAY_PREFIX}'))"
"""Of the row of a job: a worker holds it, or it was relayed. A relayed row is put back with its attempt counted. It
stays until its job has ended in the other store."""


class Running(NamedTuple):
    """The row of a key."""

    job_id: bytes
    parked: tuple[bytes, ...]


def lasts(headers: Headers) -> bool:
    return headers.unique is not None and headers.unique.until == END


def key_of(headers: Headers) -> bytes:
    assert headers.unique is not None  # noqa: S101 - for the type checker: `lasts` has asked
    return headers.unique.key_bytes


def admit_lasting(dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
    """Of each key the first candidate runs, if no other job does."""
    verdicts: dict[JobId, Verdict] = {}
    keys = sorted({key_of(each.headers) for each in candidates})
    rows = yield from _lock(dialect, keys)
    busy = yield from _insert_missing(dialect, keys, rows, candidates)
    ids = {each.job_id.bytes for each in candidates}
    alive = yield from _alive(dialect, [row.job_id for row in rows.values() if row.job_id not in ids])
    for each in candidates:
        key, job_id = key_of(each.headers), each.job_id.bytes
        if key in busy:
            verdicts[each.job_id] = Leave()
            continue
        row = rows[key]
        if row.job_id not in alive and row.job_id not in ids:
            # Its worker has ended without a settlement, and so has the job: an operator removed it.
            rows[key] = row = row._replace(job_id=job_id)
            yield _write(dialect, key, row)
        if row.job_id != job_id:
            verdicts[each.job_id] = yield from _hold_back(dialect, each, key, rows)
    return verdicts


def _hold_back(dialect: Dialect, each: Candidate, key: bytes, rows: dict[bytes, Running]) -> Plan[Verdict]:
    row, job_id = rows[key], each.job_id.bytes
    if each.headers.unique is not None and each.headers.unique.when_running == SKIP:
        return Skip("a job of the same key runs")
    if job_id not in row.parked:
        if len(row.parked) >= MOST_PARKED:
            return _CROWDED
        rows[key] = row._replace(parked=(*row.parked, job_id))
        yield _write(dialect, key, rows[key])
    return Park()


def _lock(dialect: Dialect, keys: Sequence[bytes], *, wait: bool = False) -> Plan[dict[bytes, Running]]:
    found: dict[bytes, Running] = {}
    for some in chunked(keys):
        rows = yield dialect.select_by_key(
            "unique_key, job_id, parked",
            "queue_unique_running",
            "unique_key",
            some,
            lock=dialect.for_update if wait else dialect.skip_locked,
        )
        for key, job_id, parked in rows:
            listed = bytes(parked or b"")
            ids = tuple(listed[start : start + ID_BYTES] for start in range(0, len(listed), ID_BYTES))
            found[bytes(key)] = Running(bytes(job_id), ids)
    return found


def _insert_missing(
    dialect: Dialect, keys: Sequence[bytes], rows: dict[bytes, Running], candidates: Sequence[Candidate]
) -> Plan[set[bytes]]:
    """Insert the rows of keys that have none. Returns the keys whose rows others have locked."""
    missing = [key for key in keys if key not in rows]
    busy: set[bytes] = set()
    for some in chunked(missing):
        there = yield dialect.select_by_key("unique_key", "queue_unique_running", "unique_key", some)
        busy |= {bytes(row[0]) for row in there}
    new = [key for key in missing if key not in busy]
    if not new:
        return busy
    first = {key_of(each.headers): each.job_id.bytes for each in reversed(candidates)}
    for some in chunked(new):
        values: list[str] = []
        parameters: list[bytes] = []
        for key in some:
            listed, more = dialect.id_list([key, first[key]])
            values.append(f"({listed})")
            parameters += more
        yield (
            f"INSERT INTO queue_unique_running (unique_key, job_id) VALUES {', '.join(values)} "
            f"{dialect.keep_existing('queue_unique_running', 'unique_key')}",
            tuple(parameters),
        )
    # Another claim may have inserted one of them meanwhile, and have committed.
    rows.update((yield from _lock(dialect, new)))
    return busy | {key for key in new if key not in rows}


def _alive(dialect: Dialect, ids: Sequence[bytes]) -> Plan[set[bytes]]:
    """Those of these jobs that a worker holds, or held until its lease ended, and those that were relayed."""
    found: set[bytes] = set()
    for some in chunked(sorted(set(ids))):
        rows = yield dialect.select_by_key("id", "queue_jobs", "id", some, also=_RUNS)
        found |= {bytes(row[0]) for row in rows}
    return found


def _write(dialect: Dialect, key: bytes, row: Running) -> tuple[str, tuple[object, ...]]:
    (job_id, first), (listed, second) = dialect.id_list([row.job_id]), dialect.id_list([key])
    parked, third = dialect.id_list([b"".join(row.parked)]) if row.parked else ("NULL", ())
    return (
        f"UPDATE queue_unique_running SET job_id = {job_id}, parked = {parked} WHERE unique_key = {listed}",
        (*first, *third, *second),
    )


def leave_running(dialect: Dialect, jobs: Mapping[bytes, bytes], *, sees_all: bool) -> Plan[PolicyNews]:
    """These jobs, each with its key, run no longer: what is parked behind them becomes claimable.

    ``sees_all``: this transaction reads what is committed. One of an application can read a snapshot of before.
    """
    keys = sorted(set(jobs.values()))
    rows = yield from _lock(dialect, keys, wait=True)
    queues: set[str] = set()
    ended: list[bytes] = []
    for key, row in rows.items():
        if jobs.get(row.job_id) != key:
            continue
        unparked, left = yield from _unpark(dialect, row.parked, sees_all=sees_all)
        queues |= unparked
        if left:
            yield _write(dialect, key, Running(row.job_id, left))
        else:
            ended.append(key)
    for some in chunked(sorted(ended)):
        listed, parameters = dialect.id_list(some)
        yield f"DELETE FROM queue_unique_running WHERE unique_key IN ({listed})", parameters
    return PolicyNews(frozenset(queues))


def _unpark(dialect: Dialect, ids: Sequence[bytes], *, sees_all: bool) -> Plan[tuple[set[str], tuple[bytes, ...]]]:
    """The queues of the jobs that are claimable now, and those that another transaction has locked: `upkeep` unparks
    them, unless they are gone then. A transaction that does not see all cannot tell those from others that are gone."""
    if not ids:
        return set(), ()
    parked = f"available_at = '{PARKED}'"
    keys = sorted(ids)
    rows = list(
        (yield dialect.select_by_key("id, queue", "queue_jobs", "id", keys, also=parked, lock=dialect.skip_locked))
    )
    found = {bytes(job_id): str(queue) for job_id, queue in rows}
    left = tuple(key for key in keys if key not in found)
    if left and sees_all:
        still = yield dialect.select_by_key("id", "queue_jobs", "id", left, also=parked)
        left = tuple(bytes(row[0]) for row in still)
    if found:
        yield dialect.unpark(len(found)), tuple(sorted(found))
        yield from _unpark_keys(dialect, sorted(found))
    return set(found.values()), left


def _unpark_keys(dialect: Dialect, ids: Sequence[bytes]) -> Plan[None]:
    """A dispatch that is joining one of them at this moment leaves it joinable until it starts."""
    rows = yield dialect.select_by_key(
        "job_id", "queue_unique_jobs", "job_id", ids, also=f"state = {State.PARKED:d}", lock=dialect.skip_locked
    )
    free = [bytes(row[0]) for row in rows]
    if free:
        listed, parameters = dialect.id_list(free)
        yield (
            f"UPDATE queue_unique_jobs SET state = {State.WAITING:d}, due_at = {dialect.now} "
            f"WHERE job_id IN ({listed})",
            parameters,
        )


def dead() -> Plan[dict[bytes, bytes]]:
    """Up to 100 jobs that count as running and do not, each with its key."""
    rows = yield (
        "SELECT running.job_id, running.unique_key FROM queue_unique_running AS running LEFT JOIN queue_jobs AS job "
        f"ON job.id = running.job_id AND {_RUNS} WHERE job.id IS NULL LIMIT 100",
        (),
    )
    return {bytes(job_id): bytes(key) for job_id, key in rows}


def leave_dead(dialect: Dialect, jobs: Mapping[bytes, bytes]) -> Plan[PolicyNews]:
    """`leave_running` for those of these jobs that still do not run."""
    alive = yield from _alive(dialect, list(jobs))
    dead_jobs = {job_id: key for job_id, key in jobs.items() if job_id not in alive}
    return (yield from leave_running(dialect, dead_jobs, sees_all=True))


def of_leaving(jobs: Sequence[Leaving]) -> dict[bytes, bytes]:
    return {job.job_id.bytes: key_of(job.headers) for job in jobs if lasts(job.headers)}
