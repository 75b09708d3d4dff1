"""Rows of pauses: those of queues and of the connection in `queue_pauses`, the others in `queue_job_pauses`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.pauses.tables import StoredKind
from outbox.drivers.database.tables import EVERY_QUEUE
from outbox.drivers.pauses import Pause, PauseKind, PauseTarget, PauseTerms
from outbox.errors import InvalidOption

JOB_PAUSES = "queue_job_pauses"

_RELEASED_AT_ONCE = 1_000
_STORED = {PauseKind.JOB: StoredKind.JOB, PauseKind.KEY: StoredKind.KEY}
_KINDS: dict[int, PauseKind] = {stored: kind for kind, stored in _STORED.items()}


def live(dialect: Dialect, table: str) -> str:
    """A condition: the pause has not ended. That of a circuit breaker does not end by itself."""
    probes = " OR probe IS NOT NULL" if table == JOB_PAUSES else ""
    return f"(paused_until IS NULL OR paused_until > {dialect.now}{probes})"


def pause_id(target: PauseTarget) -> bytes:
    """Of the pause of a job class or a key."""
    text = f"{target.kind}:{target.name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, person=b"outbox pauses").digest()


class _Row(NamedTuple):
    """Where a pause is stored."""

    table: str
    where: str
    parameters: tuple[Any, ...]
    values: dict[str, tuple[str, tuple[Any, ...]]]
    """Expressions and their parameters, by column: what an INSERT needs beside the terms."""


def _row_of(dialect: Dialect, target: PauseTarget) -> _Row:
    mark = dialect.placeholder
    if target.kind in _STORED:
        listed, parameters = dialect.id_list([pause_id(target)])
        kind = str(int(_STORED[target.kind]))
        values = {"id": (listed, parameters), "kind": (kind, ()), "name": (mark, (target.name,))}
        return _Row(JOB_PAUSES, f"id = {listed}", parameters, values)
    queue = EVERY_QUEUE if target.kind is PauseKind.CONNECTION else target.name
    return _Row("queue_pauses", f"queue = {mark}", (queue,), {"queue": (mark, (queue,))})


def _lock(dialect: Dialect, row: _Row) -> Plan[bool | None]:
    """Lock a pause; whether it has not ended. None where there is none."""
    is_live = f"CASE WHEN {live(dialect, row.table)} THEN 1 ELSE 0 END"
    found = yield f"SELECT {is_live} FROM {row.table} WHERE {row.where} {dialect.for_update}", row.parameters
    return next((bool(there) for (there,) in found), None)


def pause(dialect: Dialect, target: PauseTarget, terms: PauseTerms) -> Plan[bool]:
    """Whether it was not paused. A pause that is there gets the reason and the end of the terms, if they say one.

    Raises:
        InvalidOption: the end has passed by the database's clock.
    """
    row = _row_of(dialect, target)
    is_live = yield from _lock(dialect, row)
    written = _terms(dialect, terms)
    if is_live is None:
        yield _insert(dialect, row, {**row.values, **written, "paused_at": (dialect.now, ())})
    elif not is_live:
        yield _update(row, {**written, "paused_at": (dialect.now, ())})
    elif terms.changes:
        yield _update(row, written)
    found = yield f"SELECT 1 FROM {row.table} WHERE {row.where} AND {live(dialect, row.table)}", row.parameters
    if not list(found):
        raise InvalidOption(f"a pause until {terms.until} is over: the database's clock has passed that")
    return not is_live


def _terms(dialect: Dialect, terms: PauseTerms) -> dict[str, tuple[str, tuple[Any, ...]]]:
    mark = dialect.placeholder
    if terms.until is not None:
        until: tuple[str, tuple[Any, ...]] = (mark, (dialect.timestamp(terms.until),))
    elif terms.seconds is not None:
        until = dialect.now_plus(mark), (int(terms.seconds * MICROSECONDS),)
    else:
        until = "NULL", ()
    return {"reason": (mark, (terms.reason,)), "paused_by": (mark, (terms.by,)), "paused_until": until}


def _insert(dialect: Dialect, row: _Row, values: dict[str, tuple[str, tuple[Any, ...]]]) -> Statement:
    expressions = ", ".join(expression for expression, _ in values.values())
    return (
        f"{dialect.insert_missing} {row.table} ({', '.join(values)}) VALUES ({expressions})",
        tuple(each for _, parameters in values.values() for each in parameters),
    )


def _update(row: _Row, values: dict[str, tuple[str, tuple[Any, ...]]]) -> Statement:
    assignments = ", ".join(f"{column} = {expression}" for column, (expression, _) in values.items())
    parameters = tuple(each for _, some in values.values() for each in some)
    return f"UPDATE {row.table} SET {assignments} WHERE {row.where}", (*parameters, *row.parameters)


def resume(dialect: Dialect, target: PauseTarget, *, ended: bool = False) -> Plan[bool]:
    """Delete a pause; whether it was one that had not ended. With ``ended``, only one that has; whether there was."""
    row = _row_of(dialect, target)
    is_live = yield from _lock(dialect, row)
    if is_live is not None and not (ended and is_live):
        yield f"DELETE FROM {row.table} WHERE {row.where}", row.parameters
    return is_live is False if ended else bool(is_live)


def all_pauses(dialect: Dialect, connection: str, *, ended: bool = False) -> Plan[list[Pause]]:
    """Those of a connection that have not ended, or those that have."""
    no = "NOT " if ended else ""
    of_queues, of_jobs = f"{no}{live(dialect, 'queue_pauses')}", f"{no}{live(dialect, JOB_PAUSES)}"
    columns = "reason, paused_by, paused_at, paused_until"
    rows = yield (
        f"SELECT queue, {columns} FROM queue_pauses WHERE {of_queues} ORDER BY queue",
        (),
    )
    found = []
    for queue, *terms in rows:
        name = raw_columns.text(queue)
        kind = PauseKind.CONNECTION if name == EVERY_QUEUE else PauseKind.QUEUE
        found.append(_pause(dialect, kind, connection if name == EVERY_QUEUE else name, terms))
    rows = yield (
        f"SELECT kind, name, {columns} FROM queue_job_pauses WHERE {of_jobs} ORDER BY kind, name",
        (),
    )
    # Another program may have written anything into SQLite.
    readable = [(_KINDS[kind], raw_columns.text(name), terms) for kind, name, *terms in rows if kind in _KINDS]
    return found + [_pause(dialect, *each) for each in readable]


def _pause(dialect: Dialect, kind: PauseKind, name: str, terms: Sequence[Any]) -> Pause:
    reason, by, at, until = terms
    ends = None if until is None else dialect.parse_timestamp(until)
    why, who = raw_columns.text(reason) or None, raw_columns.text(by) or None
    return Pause(kind, name, why, who, dialect.parse_timestamp(at), ends)


class Released(NamedTuple):
    last: bytes | None
    """The last job that was looked at; None when there was none."""
    queues: frozenset[str]
    """Those that got claimable jobs."""


def release(dialect: Dialect, pause: bytes, after: bytes) -> Plan[Released]:
    """Make the next jobs claimable that a pause has parked, in the order of their ids."""
    listed, parameters = dialect.id_list([pause])
    start, more = dialect.id_list([after])
    rows = yield (
        f"SELECT job_id FROM queue_paused_jobs WHERE pause_id = {listed} AND job_id > {start} "
        f"ORDER BY job_id LIMIT {_RELEASED_AT_ONCE}",
        (*parameters, *more),
    )
    ids = [bytes(job_id) for (job_id,) in rows]
    queues: set[str] = set()
    for some in chunked(ids):
        # A job that an operator has let run is not there, held, or due.
        found = yield dialect.select_by_key(
            "id, queue",
            "queue_jobs",
            "id",
            some,
            also=f"available_at > {dialect.now} AND (reserved_until IS NULL OR reserved_until <= {dialect.now})",
            lock=dialect.for_update,
        )
        parked = {bytes(job_id): queue for job_id, queue in found}
        queues |= set(parked.values())
        if parked:
            yield _make_available(dialect, sorted(parked), dialect.now, ())
        gone, keys = dialect.id_list(some)
        yield f"DELETE FROM queue_paused_jobs WHERE pause_id = {listed} AND job_id IN ({gone})", (*parameters, *keys)
    return Released(ids[-1] if ids else None, frozenset(queues))


def park(dialect: Dialect, pause: bytes, ids: Sequence[bytes], until: Any) -> Plan[None]:
    """Keep jobs that this transaction has locked from claims, until a moment or until they are released."""
    for some in chunked(sorted(ids)):
        yield _make_available(dialect, some, dialect.placeholder, (until,))
        pairs: list[str] = []
        parameters: tuple[Any, ...] = ()
        for job_id in some:
            listed, more = dialect.id_list([pause, job_id])
            pairs.append(f"({listed})")
            parameters += more
        yield (
            f"INSERT INTO queue_paused_jobs (pause_id, job_id) VALUES {', '.join(pairs)} "
            f"{dialect.keep_existing('queue_paused_jobs', 'pause_id', 'job_id')}",
            parameters,
        )


def _make_available(dialect: Dialect, ids: Sequence[bytes], moment: str, parameters: tuple[Any, ...]) -> Statement:
    listed, keys = dialect.id_list(ids)
    return (
        f"{dialect.unchecked}UPDATE queue_jobs {dialect.primary_hint} SET available_at = {moment} "
        f"WHERE id IN ({listed})",
        (*parameters, *keys),
    )


def left(dialect: Dialect) -> Plan[list[bytes]]:
    """Pauses that are no more, of which jobs are still parked."""
    found: list[bytes] = []
    after = b""
    while True:
        start, parameters = dialect.id_list([after])
        rows = yield (
            f"SELECT MIN(pause_id) FROM queue_paused_jobs WHERE pause_id > {start}",
            parameters,
        )
        after = next((bytes(each) for (each,) in rows if each is not None), b"")
        if not after:
            return found
        listed, parameters = dialect.id_list([after])
        rows = yield f"SELECT 1 FROM queue_job_pauses WHERE id = {listed}", parameters
        if not list(rows):
            found.append(after)
