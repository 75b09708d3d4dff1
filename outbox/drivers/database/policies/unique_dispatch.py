"""The dispatch of unique jobs: it takes their keys, or meets the jobs that have them.

It runs in the application's own transaction and never waits for a worker. It locks the slots of its keys first, in
ascending order, and then their rows in the same order. So a transaction with the same key waits for this one, and no
two of them wait in a circle. Every row that it reads with a lock is there: at REPEATABLE READ, InnoDB would else lock a
gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from outbox.drivers.database.chunks import chunked, packets
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies.unique_tables import State
from outbox.envelope import Envelope, Headers
from outbox.errors import DuplicateJob, TablesMissing
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.policies.unique import (
    Holder,
    Outcome,
    UniqueHeaders,
    debounced_until,
    in_lock_order,
    on_dispatch,
    pack_payload,
    slot_of,
)


class Wanted(NamedTuple):
    """A job that wants its key."""

    job_id: JobId
    terms: UniqueHeaders
    payload: str
    delay: float = 0.0
    available_at: datetime | None = None
    encrypted_for: Callable[[JobId | str], str] | None = None
    version: int | None = None
    """Of the payload, where its class has one."""

    @classmethod
    def of(cls, envelope: Envelope) -> Wanted:
        headers = Headers.load(envelope.headers)
        terms = headers.unique
        assert terms is not None  # noqa: S101 - for the type checker: the job has the bit
        delay = headers.relayed_delay or envelope.delay
        available_at = headers.relayed_until or envelope.available_at
        encrypted_for, version = envelope.encrypted_for, headers.version
        return cls(envelope.id, terms, envelope.payload, delay, available_at, encrypted_for, version)


class Taken(NamedTuple):
    """What became of several jobs."""

    met: Mapping[JobId, JobId]
    """Jobs that are not to be inserted, each with the one that it met."""
    refused: Mapping[JobId, JobId]
    """The same for those that must not meet any. Where there is one, nothing was written."""


def is_unique(envelope: Envelope) -> bool:
    return envelope.policies is not None and bool(envelope.policies & Policies.UNIQUE)


def reserve(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[Mapping[JobId, JobId]]:
    """Take the keys of those of ``envelopes`` that are unique, before they are inserted in the same transaction.
    Returns those that are not to be inserted, each with the id of the job that it met.

    Raises:
        DuplicateJob: one of them must not meet another.
        TablesMissing: the table of slots lacks its rows.
    """
    taken = yield from take_keys(dialect, [Wanted.of(envelope) for envelope in envelopes if is_unique(envelope)])
    for job_id, holder in taken.refused.items():
        name = next(envelope.name for envelope in envelopes if envelope.id == job_id)
        raise DuplicateJob(f"{name}: the job {holder} has the same key", holder)
    return taken.met


def take_keys(dialect: Dialect, wanted: Sequence[Wanted]) -> Plan[Taken]:
    """Take the key of each, in their order."""
    by_key: dict[bytes, _Key] = {}
    for each in wanted:
        key = each.terms.key_bytes
        by_key.setdefault(key, _Key(key)).wanted.append(each)
    keys = [by_key[key] for key in in_lock_order(by_key)]
    yield from _lock_slots(dialect, sorted({slot_of(key.key) for key in keys}))
    for some in chunked(keys):
        yield _insert_keys(dialect, some)
    now = yield from _read_keys(dialect, by_key, keys)
    for each_key in keys:
        each_key.decide(now)
    refused = {job_id: holder for key in keys for job_id, holder in key.refused.items()}
    if refused:
        yield from _take_back(dialect, keys)
        return Taken({}, refused)
    for each_key in keys:
        yield from each_key.change(dialect)
    new = [(key.key, key.job) for key in keys if key.job is not None and key.job.is_new]
    for rows in packets(new, _size):
        yield _insert_jobs(dialect, rows)
    return Taken({job_id: holder for key in keys for job_id, holder in key.met.items()}, {})


@dataclass(slots=True)
class _Job:
    """The job that has a key."""

    job_id: JobId
    waits: bool
    due_at: datetime
    first_at: datetime
    held_until: datetime | None
    state: State | None = None
    """None if its row is locked by a claim, or it is new."""
    is_new: bool = False
    payload: str | None = None
    changed: bool = False


@dataclass(slots=True)
class _Key:
    key: bytes
    wanted: list[Wanted] = field(default_factory=list)
    before: _Job | None = None
    """The job that had the key, unless the row of the key is new."""
    job: _Job | None = None
    met: dict[JobId, JobId] = field(default_factory=dict)
    refused: dict[JobId, JobId] = field(default_factory=dict)

    def decide(self, now: datetime) -> None:
        self.job = self.before
        for each in self.wanted:
            job = self.job
            holder = None if job is None else Holder(job.waits, job.due_at, job.held_until)
            outcome = on_dispatch(holder, each.terms.on_conflict, now)
            if self.job is None or outcome is Outcome.INSERT:
                self.job = _new(each, now)
            elif outcome is Outcome.REFUSE:
                self.refused[each.job_id] = self.job.job_id
            else:
                self.met[each.job_id] = self.job.job_id
                _join(self.job, each, now, replace=outcome is Outcome.REPLACE)

    def change(self, dialect: Dialect) -> Plan[None]:
        """Write what changes for the job that had the key."""
        job = self.job
        if job is not None and job.is_new and self.before is not None:
            yield from self._take_over(dialect, job, self.before)
        elif job is not None and job.changed and not job.is_new:
            yield _update_job(dialect, job)

    def _take_over(self, dialect: Dialect, job: _Job, before: _Job) -> Plan[None]:
        held = "NULL" if job.held_until is None else dialect.placeholder
        moments = () if job.held_until is None else (dialect.timestamp(job.held_until),)
        job_id, (key, parameters) = dialect.id_list([job.job_id.bytes]), dialect.id_list([self.key])
        yield (
            f"UPDATE queue_unique SET job_id = {job_id[0]}, held_until = {held} WHERE unique_key = {key}",
            (*job_id[1], *moments, *parameters),
        )
        if before.state in (State.STARTED, State.REMOVED):
            listed, parameters = dialect.id_list([before.job_id.bytes])
            yield f"DELETE FROM queue_unique_jobs WHERE job_id = {listed}", parameters


def _new(wanted: Wanted, now: datetime) -> _Job:
    due_at = wanted.available_at or now + timedelta(seconds=wanted.delay)
    return _Job(wanted.job_id, True, due_at, now, _held_until(wanted.terms, now), is_new=True)


def _held_until(terms: UniqueHeaders, now: datetime) -> datetime | None:
    return now + timedelta(seconds=terms.until) if isinstance(terms.until, float | int) else None


def _join(job: _Job, wanted: Wanted, now: datetime, *, replace: bool) -> None:
    terms = wanted.terms
    if replace:
        payload = wanted.payload if wanted.encrypted_for is None else wanted.encrypted_for(job.job_id)
        job.payload = pack_payload(payload, wanted.version)
        job.changed = True
    if terms.debounce is not None and job.waits:
        due_at = debounced_until(job.first_at, now, terms.debounce, terms.max_wait)
        if due_at > job.due_at and job.state is not State.PARKED:
            job.due_at, job.changed = due_at, True


def _lock_slots(dialect: Dialect, slots: Sequence[int]) -> Plan[None]:
    for some in chunked(slots):
        locked = yield dialect.lock_slots(some)
        if len(list(locked)) < len(some):
            raise TablesMissing(
                "queue_lock_slots lacks its rows, without which jobs cannot be unique: start a worker, which writes "
                "them, or call outbox.migrations.upgrade in a revision"
            )


def _insert_keys(dialect: Dialect, keys: Sequence[_Key]) -> Statement:
    """Rows of new keys, with the first job of each. Rows that are there stay as they are, and are locked."""
    rows: list[str] = []
    parameters: list[Any] = []
    for key in keys:
        first = key.wanted[0]
        listed, values = dialect.id_list([key.key, first.job_id.bytes])
        until = first.terms.until
        held = "NULL" if isinstance(until, str) else dialect.seconds_from_now(until)
        rows.append(f"({listed}, {held})")
        parameters += values
    return (
        f"INSERT INTO queue_unique (unique_key, job_id, held_until) VALUES {', '.join(rows)} "
        f"{dialect.keep_existing('queue_unique', 'unique_key')}",
        tuple(parameters),
    )


def _read_keys(dialect: Dialect, by_key: Mapping[bytes, _Key], keys: Sequence[_Key]) -> Plan[datetime]:
    """The jobs that have the keys. Returns the database's time."""
    held: dict[JobId, tuple[_Key, datetime | None]] = {}
    now: Any = None
    for some in chunked(keys):
        rows = yield dialect.select_by_key(
            f"unique_key, job_id, held_until, {dialect.now}",
            "queue_unique",
            "unique_key",
            [key.key for key in some],
            lock=dialect.for_update,
        )
        for found, holder, held_until, moment in rows:
            key, job_id, now = by_key[bytes(found)], JobId(bytes=bytes(holder)), moment
            if job_id != key.wanted[0].job_id:
                held[job_id] = key, None if held_until is None else dialect.parse_timestamp(held_until)
    moment = dialect.parse_timestamp(now)
    for key, (job_id, held_until) in ((key, (job_id, until)) for job_id, (key, until) in held.items()):
        # Of a job whose row is not found below a claim has locked the row: it starts at this moment.
        key.before = _Job(job_id, False, moment, moment, held_until)
    for some_ids in chunked(sorted(held, key=lambda job_id: job_id.bytes)):
        rows = yield dialect.select_by_key(
            "job_id, state, due_at, first_at",
            "queue_unique_jobs",
            "job_id",
            [job_id.bytes for job_id in some_ids],
            lock=dialect.skip_locked,
        )
        for found, state, due_at, first_at in rows:
            job_id = JobId(bytes=bytes(found))
            key, held_until = held[job_id]
            key.before = _found(dialect, job_id, State(state), due_at, first_at, held_until, moment)
    return moment


def _found(
    dialect: Dialect,
    job_id: JobId,
    state: State,
    due_at: Any,
    first_at: Any,
    held_until: datetime | None,
    now: datetime,
) -> _Job | None:
    waits = state in (State.WAITING, State.PARKED)
    due = now if state is State.PARKED else dialect.parse_timestamp(due_at)
    # An operator has removed it: nothing holds the key.
    held = None if state is State.REMOVED else held_until
    return _Job(job_id, waits, due, dialect.parse_timestamp(first_at), held, state)


def _take_back(dialect: Dialect, keys: Sequence[_Key]) -> Plan[None]:
    for some in chunked([key for key in keys if key.before is None]):
        listed, parameters = dialect.id_list([key.key for key in some])
        yield f"DELETE FROM queue_unique WHERE unique_key IN ({listed})", parameters


def _size(row: tuple[bytes, _Job]) -> int:
    payload = row[1].payload
    return 0 if payload is None else len(payload.encode())


def _insert_jobs(dialect: Dialect, jobs: Sequence[tuple[bytes, _Job]]) -> Statement:
    """New jobs, each with its key."""
    mark = dialect.placeholder
    rows: list[str] = []
    parameters: list[Any] = []
    for key, job in jobs:
        listed, values = dialect.id_list([job.job_id.bytes, key])
        rows.append(f"({listed}, {State.WAITING:d}, {mark}, {mark}, {mark})")
        parameters += (*values, dialect.timestamp(job.due_at), dialect.timestamp(job.first_at), job.payload)
    return (
        f"INSERT INTO queue_unique_jobs (job_id, unique_key, state, due_at, first_at, payload) "
        f"VALUES {', '.join(rows)} {dialect.keep_existing('queue_unique_jobs', 'job_id')}",
        tuple(parameters),
    )


def _update_job(dialect: Dialect, job: _Job) -> Statement:
    """The row is locked by this transaction."""
    listed, parameters = dialect.id_list([job.job_id.bytes])
    mark = dialect.placeholder
    due = "due_at" if job.state is State.PARKED else mark
    moments = () if job.state is State.PARKED else (dialect.timestamp(job.due_at),)
    return (
        f"UPDATE queue_unique_jobs SET payload = COALESCE({mark}, payload), due_at = {due} WHERE job_id = {listed}",
        (job.payload, *moments, *parameters),
    )
