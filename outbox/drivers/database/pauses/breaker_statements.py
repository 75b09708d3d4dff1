"""Rows of circuit breakers: exceptions are counted in `queue_breakers`, and an open one is a pause of its job class.

The pause has a probe. Until its time is up that is `NO_JOB`; then the next job that a claim finds. The row of the pause
is locked before that of the breaker.
"""

from __future__ import annotations

from outbox.drivers.breakers import BreakerTerms
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.pauses.statements import pause_id
from outbox.drivers.database.pauses.tables import BreakerState, StoredKind
from outbox.drivers.pauses import PauseKind, PauseTarget

NO_JOB = bytes(16)
_BY = "circuit breaker"


def id_of(name: str) -> bytes:
    return pause_id(PauseTarget(PauseKind.JOB, name))


def let_run(dialect: Dialect, pause: bytes, job_id: bytes) -> Statement:
    """Make a job the probe. If nothing comes of it, the next one is let run after the same time again."""
    listed, keys = dialect.id_list([pause])
    probe, more = dialect.id_list([job_id])
    lasted = f"({dialect.microseconds('paused_until')} - {dialect.microseconds('paused_at')})"
    # MySQL assigns from left to right.
    return (
        f"UPDATE queue_job_pauses SET paused_until = {dialect.now_plus(lasted)}, paused_at = {dialect.now}, "
        f"probe = {probe} WHERE id = {listed}",
        (*more, *keys),
    )


def probe_of(dialect: Dialect, name: str, *, lock: bool = False) -> Plan[tuple[bool, bytes | None]]:
    """Whether the class is paused, and the probe of its circuit breaker."""
    listed, keys = dialect.id_list([id_of(name)])
    rows = yield f"SELECT probe FROM queue_job_pauses WHERE id = {listed} {dialect.for_update if lock else ''}", keys
    found = list(rows)
    return bool(found), next((bytes(probe) for (probe,) in found if probe is not None), None)


def failed(dialect: Dialect, name: str, job_id: bytes, terms: BreakerTerms, error: str) -> Plan[bool]:
    """Count an exception; whether the circuit breaker opens, or opens again."""
    is_paused, probe = yield from probe_of(dialect, name, lock=True)
    if is_paused and probe != job_id:
        # It was running when the breaker opened.
        return False
    if is_paused:
        yield _reopen(dialect, name, terms, f"circuit breaker: the probe raised {error}")
        yield _opened(dialect, name)
        return True
    failures = yield from _count(dialect, name, terms.within)
    if failures < terms.max_exceptions:
        return False
    reason = f"circuit breaker: {failures} exceptions within {terms.within:g} s, the last {error}"
    yield _open(dialect, name, terms, reason)
    yield _opened(dialect, name)
    return True


def _count(dialect: Dialect, name: str, within: float) -> Plan[int]:
    """Count one more exception; how many there were in this span."""
    mark = dialect.placeholder
    since = dialect.seconds_from_now(-within)
    select = (
        f"SELECT failures, CASE WHEN state = {int(BreakerState.CLOSED)} AND counted_from > {since} THEN 1 ELSE 0 END "
        f"FROM queue_breakers WHERE name = {mark} {dialect.for_update}"
    )
    rows = list((yield select, (name,)))
    if not rows:
        yield (
            f"{dialect.insert_missing} queue_breakers (name, state, failures, counted_from, opened, changed_at) "
            f"VALUES ({mark}, {int(BreakerState.CLOSED)}, 0, {dialect.now}, 0, {dialect.now})",
            (name,),
        )
        rows = list((yield select, (name,)))
    [(failures, goes_on)] = rows
    if goes_on:
        yield f"UPDATE queue_breakers SET failures = failures + 1 WHERE name = {mark}", (name,)
        return int(failures) + 1
    yield (
        f"UPDATE queue_breakers SET failures = 1, state = {int(BreakerState.CLOSED)}, counted_from = {dialect.now} "
        f"WHERE name = {mark}",
        (name,),
    )
    return 1


def _open(dialect: Dialect, name: str, terms: BreakerTerms, reason: str) -> Statement:
    mark, (listed, keys) = dialect.placeholder, dialect.id_list([id_of(name)])
    probe, more = dialect.id_list([NO_JOB])
    return (
        f"{dialect.insert_missing} queue_job_pauses "
        "(id, kind, name, reason, paused_by, paused_at, paused_until, probe) "
        f"VALUES ({listed}, {int(StoredKind.JOB)}, {mark}, {mark}, '{_BY}', {dialect.now}, {dialect.now_plus(mark)}, "
        f"{probe})",
        (*keys, name, reason[:255], int(terms.pause * MICROSECONDS), *more),
    )


def _reopen(dialect: Dialect, name: str, terms: BreakerTerms, reason: str) -> Statement:
    mark, (listed, keys) = dialect.placeholder, dialect.id_list([id_of(name)])
    probe, more = dialect.id_list([NO_JOB])
    return (
        f"UPDATE queue_job_pauses SET reason = {mark}, paused_at = {dialect.now}, "
        f"paused_until = {dialect.now_plus(mark)}, probe = {probe} WHERE id = {listed}",
        (reason[:255], int(terms.pause * MICROSECONDS), *more, *keys),
    )


def _opened(dialect: Dialect, name: str) -> Statement:
    return (
        f"UPDATE queue_breakers SET state = {int(BreakerState.OPEN)}, opened = opened + 1, changed_at = {dialect.now} "
        f"WHERE name = {dialect.placeholder}",
        (name,),
    )


def succeeded(dialect: Dialect, name: str, job_id: bytes) -> Plan[bool]:
    """Close the circuit breaker if this job is its probe; whether it is."""
    _, probe = yield from probe_of(dialect, name, lock=True)
    if probe != job_id:
        return False
    listed, keys = dialect.id_list([id_of(name)])
    yield f"DELETE FROM queue_job_pauses WHERE id = {listed}", keys
    yield f"DELETE FROM queue_breakers WHERE name = {dialect.placeholder}", (name,)
    return True
