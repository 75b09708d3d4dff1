"""Statements on the rows of keys. Rows of `keyed_jobs` are changed by their primary key, under the locks of slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.policies.slot_locks import lock_rows
from outbox.drivers.database.tables import key_slots
from outbox.drivers.database.tables import lock_slots as lock_slots_table
from outbox.envelope import Envelope, Headers
from outbox.policies.keys import Facts, Key, Kind, Place, State, hash_of, shown
from outbox.policies.slots import slot_of, slots_of

_MOMENT = 26
_OLDEST = "2000-01-01 00:00:00.000000"
"""The moment of a job that is the next of its key, whatever waits."""
_CONCURRENCY, _ORDERING = Kind.CONCURRENCY, Kind.ORDERING


class KeyedRow(NamedTuple):
    """A row of `keyed_jobs`."""

    seq: int
    job_id: bytes
    kind: Kind
    key: bytes
    state: State
    size: int
    place_text: Any
    """Its place as `Dialect.place` has it: such texts sort as the places do."""

    @property
    def place(self) -> Place:
        found = _place(self.place_text)
        assert found is not None  # noqa: S101 - neither of its columns is nullable
        return found


class Parked(NamedTuple):
    """A row of `keyed_jobs` and its job."""

    seq: int
    job_id: bytes


class NewRow(NamedTuple):
    """A row to be inserted for a job."""

    job: Envelope
    kind: Kind
    key: Key

    @property
    def hashed(self) -> bytes:
        return hash_of(self.kind, self.key)


def lock_slots(dialect: Dialect, keys: Sequence[bytes], *, wait: bool) -> Plan[set[int]]:
    """Lock the slots of ``keys``; return those that were locked. Without ``wait`` others are left out."""
    end = dialect.for_update if wait else dialect.skip_locked
    return (yield from lock_rows(dialect, key_slots.name, slots_of(keys), end))


def lock_dispatch_slots(dialect: Dialect, keys: Sequence[bytes]) -> Plan[None]:
    """Have transactions that dispatch jobs of a key wait for each other."""
    yield from lock_rows(dialect, lock_slots_table.name, slots_of(keys), dialect.for_update)


def insert_rows(dialect: Dialect, rows: Sequence[NewRow], *, first: bool = False) -> Plan[None]:
    """Jobs wait under their keys from the time at which they become due; ``first``: before all others."""
    for chunk in chunked(rows):
        yield _insert(dialect, chunk, first=first)


def _insert(dialect: Dialect, rows: Sequence[NewRow], *, first: bool) -> Statement:
    mark = dialect.placeholder
    values: list[str] = []
    parameters: list[Any] = []
    for job, kind, key in rows:
        binary, more = dialect.id_list([job.id.bytes])
        hashed, hash_parameters = dialect.id_list([hash_of(kind, key)])
        parameters += (*more, *hash_parameters, shown(key.name))
        moment = dialect.now
        if first:
            moment = f"'{_OLDEST}'"
        elif job.available_at is not None:
            moment = f"CASE WHEN {mark} > {dialect.now} THEN {mark} ELSE {dialect.now} END"
            parameters += [dialect.timestamp(job.available_at)] * 2
        elif job.delay:
            moment = dialect.now_plus(mark)
            parameters.append(int(job.delay * MICROSECONDS))
        values.append(f"({binary}, {int(kind)}, {hashed}, {int(State.WAITING)}, {int(key.size)}, {mark}, {moment})")
    return (
        "INSERT INTO queue_keyed_jobs (job_id, kind, key_hash, state, size, name, moment) "
        f"VALUES {', '.join(values)} {dialect.keep_existing('queue_keyed_jobs', 'job_id', 'kind')}",
        tuple(parameters),
    )


def rows_of(dialect: Dialect, ids: Sequence[bytes]) -> Plan[list[KeyedRow]]:
    """The rows of these jobs."""
    found: list[KeyedRow] = []
    for some in chunked(ids):
        listed, parameters = dialect.id_list(some)
        rows = yield (
            f"SELECT seq, job_id, kind, key_hash, state, size, {dialect.place('k')} FROM queue_keyed_jobs AS k "
            f"WHERE job_id IN ({listed})",
            parameters,
        )
        # One that other programs have written is no row: its job runs as one without a key.
        found += [_row(row) for row in rows if row[2] in _KINDS and row[4] in _STATES]
    return found


def in_state(dialect: Dialect, ids: Sequence[bytes], state: State) -> Plan[set[bytes]]:
    """Those of these jobs that are in ``state`` under one of their keys."""
    found: set[bytes] = set()
    for some in chunked(ids):
        listed, parameters = dialect.id_list(some)
        rows = yield (
            f"SELECT job_id FROM queue_keyed_jobs WHERE job_id IN ({listed}) AND state = {int(state)}",
            parameters,
        )
        found |= {bytes(job_id) for (job_id,) in rows}
    return found


def names_of(dialect: Dialect, seqs: Sequence[int]) -> Plan[dict[int, str]]:
    """The names of the keys of these rows."""
    found: dict[int, str] = {}
    for some in chunked(seqs):
        listed = ", ".join(map(str, some))
        rows = yield f"SELECT seq, name FROM queue_keyed_jobs {dialect.primary_hint} WHERE seq IN ({listed})", ()
        found.update({int(seq): str(name) for seq, name in rows})
    return found


TO_DECIDE: Mapping[Kind, Sequence[str]] = {
    Kind.ORDERING: ("held", "blocked", "first_waiting", "first_parked"),
    Kind.CONCURRENCY: ("held",),
    Kind.FAIR: ("let_in", "first_parked"),
}
"""The facts by which a claim decides about candidates."""
PARKED: Mapping[Kind, Sequence[str]] = dict.fromkeys(Kind, ("first_parked",))
TO_LET_IN = {**TO_DECIDE, Kind.CONCURRENCY: ("held", "let_in", "first_parked")}
"""The facts that say how many parked jobs have their turn."""


def facts_of(
    dialect: Dialect, keys: Iterable[tuple[bytes, Kind]], asked: Mapping[Kind, Sequence[str]]
) -> Plan[dict[bytes, Facts]]:
    """What is known of each key: a few entries of the index, however many jobs wait. Facts that are not ``asked``
    for a kind of key are those of a key without jobs."""
    facts: dict[bytes, Facts] = {}
    by_kind: dict[Kind, set[bytes]] = {}
    for key, kind in keys:
        by_kind.setdefault(kind, set()).add(key)
    for kind in sorted(by_kind):
        facts |= yield from _facts(dialect, by_kind[kind], asked[kind])
    return facts


def _facts(dialect: Dialect, keys: Iterable[bytes], asked: Sequence[str]) -> Plan[dict[bytes, Facts]]:
    facts: dict[bytes, Facts] = {}
    columns = ", ".join(_fact(dialect, name) for name in asked)
    unknown: dict[str, Any] = dict.fromkeys(_FIRST) | dict.fromkeys(_COUNTED, 0)
    for some in chunked(sorted(keys), 200):
        listed, parameters = dialect.each_id(some)
        selects = " UNION ALL SELECT ".join([f"{one} AS key_hash" for one in listed])
        rows = yield f"SELECT asked.key_hash, {columns} FROM (SELECT {selects}) AS asked", parameters
        for key, *values in rows:
            known = unknown | dict(zip(asked, values, strict=True))
            facts[bytes(key)] = Facts(
                known["held"],
                known["let_in"],
                bool(known["blocked"]),
                _place(known["first_waiting"]),
                _place(known["first_parked"]),
            )
    return facts


_KINDS = {int(kind): kind for kind in Kind}
_STATES = {int(state): state for state in State}
"""A call of an enumeration takes as long as all the rest of reading a row."""
_COUNTED = {"held": State.HELD, "let_in": State.LET_IN, "blocked": State.BLOCKING}
_FIRST = {"first_waiting": State.WAITING, "first_parked": State.PARKED}


def _fact(dialect: Dialect, name: str) -> str:
    return _first(dialect, _FIRST[name]) if name in _FIRST else _count(dialect, _COUNTED[name])


def _count(dialect: Dialect, state: State) -> str:
    return (
        f"(SELECT COUNT(*) FROM queue_keyed_jobs AS k {dialect.key_hint} "
        f"WHERE k.key_hash = asked.key_hash AND k.state = {int(state)})"
    )


def _first(dialect: Dialect, state: State) -> str:
    due = f"AND k.moment <= {dialect.now} " if state is State.WAITING else ""
    return (
        f"(SELECT {dialect.place('k')} FROM queue_keyed_jobs AS k {dialect.key_hint} "
        f"WHERE k.key_hash = asked.key_hash AND k.state = {int(state)} {due}"
        "ORDER BY k.key_hash, k.state, k.moment, k.seq LIMIT 1)"
    )


def jobs_at(sequences: Sequence[int]) -> Plan[list[Parked]]:
    """The jobs of these rows."""
    found: list[Parked] = []
    for some in chunked(sorted(sequences)):
        rows = yield f"SELECT seq, job_id FROM queue_keyed_jobs WHERE seq IN ({_listed(some)})", ()
        found += _jobs(rows)
    return found


def held(dialect: Dialect, key: bytes, limit: int) -> Plan[list[Parked]]:
    """The first held jobs of a key."""
    return _in_state(dialect, key, State.HELD, limit)


def first_parked(dialect: Dialect, key: bytes, limit: int) -> Plan[list[Parked]]:
    return _in_state(dialect, key, State.PARKED, limit)


def _in_state(dialect: Dialect, key: bytes, state: State, limit: int) -> Plan[list[Parked]]:
    listed, parameters = dialect.id_list([key])
    rows = yield (
        f"SELECT seq, job_id FROM queue_keyed_jobs AS k {dialect.key_hint} "
        f"WHERE key_hash = {listed} AND state = {int(state)} "
        f"ORDER BY key_hash, state, moment, seq LIMIT {limit}",
        parameters,
    )
    return _jobs(rows)


def due_waiting(dialect: Dialect, keys: Sequence[bytes], limit: int) -> Plan[list[Parked]]:
    """Jobs of these keys that claims would find."""
    listed, parameters = dialect.id_list(keys)
    rows = yield (
        f"SELECT seq, job_id FROM queue_keyed_jobs AS k {dialect.key_hint} WHERE key_hash IN ({listed}) "
        f"AND state = {int(State.WAITING)} AND moment <= {dialect.now} LIMIT {limit}",
        parameters,
    )
    return _jobs(rows)


def limits_of(dialect: Dialect, ended: Iterable[Headers]) -> Plan[dict[bytes, int]]:
    """The limits of concurrency keys that an operator has set, by the names of jobs."""
    keys = {
        header.hashes[_CONCURRENCY]: limited.job
        for headers in ended
        if (header := headers.keys) is not None and (limited := header.concurrency) is not None
    }
    names = sorted({name for name in keys.values() if name})
    if not names:
        return {}
    found: dict[str, int] = {}
    for some in chunked(names):
        marks = ", ".join([dialect.placeholder] * len(some))
        rows = yield (
            f"SELECT name, concurrency FROM queue_limits WHERE concurrency > 0 AND name IN ({marks})",
            tuple(some),
        )
        found.update((str(name), int(limit)) for name, limit in rows)
    return {key: found[name] for key, name in keys.items() if name in found}


def set_state(sequences: Sequence[int], state: State) -> Iterator[Statement]:
    for some in chunked(sorted(sequences)):
        yield f"UPDATE queue_keyed_jobs SET state = {int(state)} WHERE seq IN ({_listed(some)})", ()


def set_moment(sequences: Sequence[int], moment: Statement) -> Iterator[Statement]:
    """Give rows another time, which is an expression."""
    for some in chunked(sorted(sequences)):
        yield f"UPDATE queue_keyed_jobs SET moment = {moment[0]} WHERE seq IN ({_listed(some)})", moment[1]


def delete_rows(sequences: Sequence[int]) -> Iterator[Statement]:
    for some in chunked(sorted(sequences)):
        yield f"DELETE FROM queue_keyed_jobs WHERE seq IN ({_listed(some)})", ()


def new_rows(jobs: Sequence[tuple[Envelope, Headers]]) -> list[NewRow]:
    return [
        NewRow(job, kind, key)
        for job, headers in jobs
        if headers.keys is not None
        for kind, key in headers.keys.kinds()
    ]


def hashes_of(headers: Headers) -> list[bytes]:
    return [] if headers.keys is None else list(headers.keys.hashes.values())


def _jobs(rows: Iterable[Sequence[Any]]) -> list[Parked]:
    """SQLite keeps other values than ids: those are no jobs."""
    return [Parked(seq, bytes(job_id)) for seq, job_id in rows if isinstance(job_id, bytes | bytearray)]


def in_slots(key: bytes, slots: set[int]) -> bool:
    return slot_of(key) in slots


def _listed(sequences: Sequence[int]) -> str:
    return ", ".join(map(str, sequences))


def _place(text: Any) -> Place | None:
    if text is None:
        return None
    read = text.decode() if isinstance(text, bytes) else str(text)
    try:
        return Place(read[:_MOMENT], int(read[_MOMENT:]))
    except ValueError:  # SQLite keeps other texts than those of a time
        return None


def _row(row: Any) -> KeyedRow:
    seq, job_id, kind, key, state, size, place = row
    if size < 1 and kind != _ORDERING:
        size = 1
    return KeyedRow(seq, bytes(job_id), _KINDS[kind], bytes(key), _STATES[state], size, place)
