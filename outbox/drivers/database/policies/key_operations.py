"""What operators see of keys and do to them, and what workers repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from outbox.drivers.database import raw_columns
from outbox.drivers.database.audit import record
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import job_rows
from outbox.drivers.database.policies import key_statements as statements
from outbox.drivers.database.policies.base import Returning
from outbox.drivers.database.policies.jobs_ahead import ahead
from outbox.drivers.database.policies.key_release import let_in
from outbox.drivers.database.policies.key_statements import KeyedRow
from outbox.drivers.database.tables import PARKED
from outbox.drivers.filters import BLOCKED_EXAMINED, BlockedPage
from outbox.drivers.values import PolicyNews
from outbox.envelope import Headers
from outbox.errors import JobNotFound
from outbox.events import KeyUnblocked
from outbox.ids import JobId
from outbox.policies.keys import Facts, Kind, State, hash_of, shown

_REPAIRED_AT_ONCE = 500
_GIVEN = (
    f"(k.state = {int(State.LET_IN)} AND EXISTS (SELECT 1 FROM queue_jobs AS p WHERE p.id = k.job_id "
    f"AND p.available_at = '{PARKED}'))"
)
"""A key has let a job in, and something else has parked it: claims find it no more, and others have its place."""


def lines(dialect: Dialect, job_id: JobId, headers: Headers) -> Plan[list[str]]:
    """What keys do with a job."""
    keys = [] if headers.keys is None else headers.keys.kinds()
    limits = yield from statements.limits_of(dialect, [headers])
    rows = yield from statements.rows_of(dialect, [job_id.bytes])
    by_kind = {row.kind: row for row in rows}
    facts = yield from statements.facts_of(dialect, [(row.key, row.kind) for row in rows], statements.TO_DECIDE)
    found: list[str] = []
    for kind, key in keys:
        row = by_kind.get(kind)
        if row is not None:
            before = yield from _before(dialect, row)
            now = row._replace(size=limits.get(row.key, row.size))
            found.append(_line(kind, key.name, now, facts[row.key], before))
    return found


def _line(kind: Kind, name: str, row: KeyedRow, facts: Facts, before: str) -> str:
    if row.state is not State.PARKED:
        held = f", {facts.held:,} of {row.size:,} held" if kind is Kind.CONCURRENCY else ""
        return f"{kind.name.lower()} key `{name}`{held}, {before}"
    if kind is Kind.CONCURRENCY:
        return f"parked: key `{name}` is full, {before}"
    if kind is Kind.FAIR:
        return f"parked: other keys have their turn before `{name}`, {before}"
    if facts.blocked:
        return f"parked: key `{name}` is blocked by a failed job, {before}: `outbox unblock {name} --retry`"
    return f"parked: key `{name}` runs one job at a time, {before}"


def _before(dialect: Dialect, row: KeyedRow) -> Plan[str]:
    """How many jobs of the key wait before this one."""
    listed, parameters = dialect.id_list([row.key])
    mark = dialect.placeholder
    return (
        yield from ahead(
            f"queue_keyed_jobs AS k {dialect.key_hint} WHERE key_hash = {listed} "
            f"AND state IN ({int(State.WAITING)}, {int(State.PARKED)}, {int(State.LET_IN)}) "
            f"AND (moment < {mark} OR (moment = {mark} AND seq < {row.seq}))",
            (*parameters, *([row.place.moment] * 2)),
        )
    )


async def blocked(database: Database, key: str | None) -> dict[JobId, str]:
    """The failed jobs that block keys, or this key, and the names of their keys. Of a long key, its row has the
    beginning, which stands for all keys that begin so."""
    named = None if key is None else shown(key)
    chosen = "" if key is None else f"AND k.name = {database.dialect.placeholder} "

    async def read(connection: SqlConnection) -> dict[JobId, str]:
        rows = await connection.exec_driver_sql(
            "SELECT f.id, k.name FROM queue_failed_jobs AS f JOIN queue_keyed_jobs AS k ON k.job_id = f.id "
            f"WHERE k.kind = {int(Kind.ORDERING)} AND k.state = {int(State.BLOCKING)} {chosen}ORDER BY f.id",
            () if named is None else (named,),
        )
        # Texts that differ by spaces at their ends are the same to MySQL.
        found = [(raw_columns.job_id(job_id), raw_columns.text(name)) for job_id, name in rows]
        return {job_id: name for job_id, name in found if job_id is not None and named in (None, name)}

    return await database.read_plain(read)


async def blocked_page(database: Database, before: JobId | None) -> BlockedPage:
    """Two reads, as for pages of failed jobs: which of those that the page may look at block a key, and where they
    end."""
    return await database.read_plain(running(_blocked_page, database.dialect, before))


def _blocked_page(dialect: Dialect, before: JobId | None) -> Plan[BlockedPage]:
    where, parameters = ("", ()) if before is None else (yield from _earlier_than(dialect, before))
    part = f"FROM queue_failed_jobs {dialect.latest_hint} {where} ORDER BY failed_at DESC, id DESC"
    rows = yield (
        f"SELECT f.id, k.name FROM (SELECT id, failed_at {part} LIMIT {BLOCKED_EXAMINED}) AS f "
        f"{dialect.straight_join} queue_keyed_jobs AS k ON k.job_id = f.id AND k.kind = {int(Kind.ORDERING)} "
        f"AND k.state = {int(State.BLOCKING)} ORDER BY f.failed_at DESC, f.id DESC",
        parameters,
    )
    keys = {JobId(bytes=bytes(job_id)): str(name) for job_id, name in rows}
    ends = yield f"SELECT id {part} LIMIT 1 OFFSET {BLOCKED_EXAMINED - 1}", parameters
    return BlockedPage(keys, next((raw_columns.job_id(job_id) for (job_id,) in ends), None))


def _earlier_than(dialect: Dialect, before: JobId) -> Plan[tuple[str, tuple[Any, ...]]]:
    """
    Raises:
        JobNotFound: it is gone.
    """
    listed, key = dialect.id_list([before.bytes])
    rows = yield f"SELECT failed_at FROM queue_failed_jobs WHERE id = {listed}", key
    found = [failed_at for (failed_at,) in rows]
    if not found:
        raise JobNotFound(f"the failed job {before} was removed meanwhile: begin again with the first page")
    mark = dialect.placeholder
    return (
        f"WHERE failed_at <= {mark} AND (failed_at < {mark} OR (failed_at = {mark} AND id < {listed}))",
        (*found * 3, *key),
    )


async def skip(database: Database, job_ids: Sequence[JobId]) -> list[JobId]:
    """Let the keys that these failed jobs block go on without them; return those that did block one."""
    skipped: list[JobId] = []
    for some in chunked(sorted(job_ids)):
        ids = [job_id.bytes for job_id in some]
        news = await database.write_plain(running(_skip, database.dialect, ids))
        skipped += [event.job_id for event in news.events if isinstance(event, KeyUnblocked)]
        if news:
            database.on_policy_news(news)
    return skipped


def _skip(dialect: Dialect, ids: Sequence[bytes]) -> Plan[PolicyNews]:
    rows = yield from statements.rows_of(dialect, ids)
    yield from statements.lock_slots(dialect, [row.key for row in rows], wait=True)
    rows = [row for row in (yield from statements.rows_of(dialect, ids)) if row.state is State.BLOCKING]
    names = yield from statements.names_of(dialect, [row.seq for row in rows])
    yield from statements.delete_rows([row.seq for row in rows])
    released = yield from let_in(dialect, rows)
    yield from record(dialect, len(rows))
    return PolicyNews(released.queues, tuple(KeyUnblocked(names[row.seq], JobId(bytes=row.job_id)) for row in rows))


def unblocking(dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, KeyUnblocked]]:
    """What it means for keys when these failed jobs return: those of them that block one."""
    ordered = [job for job in jobs if job.headers.keys is not None and job.headers.keys.ordering is not None]
    if not ordered:
        return {}
    rows = yield from statements.rows_of(dialect, [job.job_id.bytes for job in ordered])
    blocking = [row for row in rows if row.state is State.BLOCKING]
    names = yield from statements.names_of(dialect, [row.seq for row in blocking])
    return {(job_id := JobId(bytes=row.job_id)): KeyUnblocked(names[row.seq], job_id) for row in blocking}


async def let_in_next(database: Database, ended: Sequence[Headers]) -> PolicyNews:
    """Let in the next jobs of the keys of jobs with these headers."""
    rows = [
        _held(kind, hash_of(kind, key), key.size)
        for headers in ended
        if headers.keys is not None
        for kind, key in headers.keys.kinds()
    ]
    if not rows:
        return PolicyNews()
    return PolicyNews(await database.write_plain(running(_let_in, database.dialect, rows, ended)))


async def let_in_of_class(database: Database, name: str, limit: int | None) -> PolicyNews:
    """The limit of the jobs called ``name`` has changed: to ``limit``, or for None to what they were dispatched with.
    Let in those of their keys that have room now."""
    news, last = PolicyNews(), bytes(16)
    while rows := await database.read_plain(partial(_crowded, database.dialect, name, last)):
        sized = [row if limit is None else row._replace(size=limit) for row in rows]
        news += PolicyNews(await database.write_plain(running(_let_in, database.dialect, sized)))
        last = rows[-1].key
    return news


async def _crowded(dialect: Dialect, name: str, after: bytes, connection: SqlConnection) -> list[KeyedRow]:
    """Concurrency keys behind which jobs called ``name`` are parked, in the order of their hashes."""
    listed, parameters = dialect.id_list([after])
    rows = await connection.exec_driver_sql(
        "SELECT k.key_hash, MAX(k.size) FROM queue_keyed_jobs AS k JOIN queue_jobs AS j ON j.id = k.job_id "
        f"WHERE k.kind = {int(Kind.CONCURRENCY)} AND k.state = {int(State.PARKED)} AND k.key_hash > {listed} "
        f"AND j.name = {dialect.placeholder} GROUP BY k.key_hash ORDER BY k.key_hash LIMIT {_REPAIRED_AT_ONCE}",
        (*parameters, name),
    )
    return [_held(Kind.CONCURRENCY, bytes(key), int(size)) for key, size in rows]


def _held(kind: Kind, key: bytes, size: int) -> KeyedRow:
    """Stands for a job that has left its key."""
    return KeyedRow(0, b"", kind, key, State.HELD, size, "")


def _let_in(dialect: Dialect, rows: Sequence[KeyedRow], ended: Sequence[Headers] = ()) -> Plan[frozenset[str]]:
    yield from statements.lock_slots(dialect, [row.key for row in rows], wait=True)
    return (yield from let_in(dialect, rows, ended)).queues


async def repair(database: Database) -> PolicyNews:
    """Forget jobs that applications have removed, and let in the next of keys that nothing else will let in."""
    dialect = database.dialect

    async def look(connection: SqlConnection) -> list[bytes]:
        rows = await connection.exec_driver_sql(
            f"SELECT k.job_id FROM queue_keyed_jobs AS k WHERE k.state <> {int(State.BLOCKING)} "
            f"AND (NOT EXISTS (SELECT 1 FROM queue_jobs AS j WHERE j.id = k.job_id) OR (k.state = {int(State.PARKED)} "
            "AND NOT EXISTS (SELECT 1 FROM queue_keyed_jobs AS o WHERE o.key_hash = k.key_hash AND "
            f"(o.state IN ({int(State.HELD)}, {int(State.BLOCKING)}, {int(State.LET_IN)}) "
            f"OR (o.state = {int(State.WAITING)} AND o.moment <= {dialect.now})))) OR {_GIVEN}) "
            f"LIMIT {_REPAIRED_AT_ONCE}",
            (),
        )
        return [bytes(job_id) for (job_id,) in rows]

    ids = await database.read_plain(look)
    if not ids:
        return PolicyNews()
    return PolicyNews(await database.write_plain(running(_repair, dialect, ids)))


def _repair(dialect: Dialect, ids: Sequence[bytes]) -> Plan[frozenset[str]]:
    rows = yield from statements.rows_of(dialect, ids)
    yield from statements.lock_slots(dialect, [row.key for row in rows], wait=True)
    rows = yield from statements.rows_of(dialect, ids)
    there = yield from job_rows.present(dialect, [row.job_id for row in rows])
    gone = [row.seq for row in rows if row.job_id not in there and row.state is not State.BLOCKING]
    yield from statements.delete_rows(gone)
    if not rows:
        return frozenset()
    listed, parameters = dialect.id_list(sorted({row.job_id for row in rows}))
    given = yield f"SELECT k.seq FROM queue_keyed_jobs AS k WHERE k.job_id IN ({listed}) AND {_GIVEN}", parameters
    yield from statements.set_state([seq for (seq,) in given], State.WAITING)
    return (yield from let_in(dialect, rows)).queues
