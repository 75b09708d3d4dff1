"""Unique jobs: what claims, settlements and operators do with their keys.

A claim tells later dispatches that a job has started by the state of its row in ``queue_unique_jobs``. A dispatch that
joins the job has that row locked until it ends, and the claim then leaves the job. So a job never starts before the
transactions that joined it have ended, and a dispatch never joins a job that has started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.policies.base import (
    RUN,
    Candidate,
    Leave,
    Leaving,
    Park,
    PolicyRows,
    Refusal,
    Returning,
    Run,
    Upkeep,
    Verdict,
)
from outbox.drivers.database.policies.unique_dispatch import Wanted, take_keys
from outbox.drivers.database.policies.unique_running import (
    admit_lasting,
    dead,
    lasts,
    leave_dead,
    leave_running,
    of_leaving,
)
from outbox.drivers.database.policies.unique_tables import State
from outbox.drivers.database.tables import PARKED
from outbox.drivers.values import PolicyNews
from outbox.envelope import Headers
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.policies.unique import OnConflict, unpack_payload
from outbox.settlement import Outcome

_WAITING = f"state IN ({State.WAITING:d}, {State.PARKED:d})"
_REMOVALS = {Outcome.CANCELLED, Outcome.SKIPPED, Outcome.FAILED}
_KEPT_SECONDS = 60
"""For how long rows of jobs that have started stay, so that no dispatch is likely to want them when they go."""
_PRUNED_AT_ONCE = 500


class _Row(NamedTuple):
    state: int
    wait: float
    """Microseconds until the job is due."""
    payload: str | None


class UniqueRows(PolicyRows):
    policy = Policies.UNIQUE
    tables = ("queue_unique_jobs", "queue_unique_running")

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
        rows, busy = yield from _read(dialect, [each.job_id.bytes for each in candidates])
        verdicts: dict[JobId, Verdict] = {}
        for each in candidates:
            verdicts[each.job_id] = _of_waiting(rows.get(each.job_id.bytes), locked=each.job_id.bytes in busy)
        lasting = [each for each in candidates if isinstance(verdicts[each.job_id], Run) and lasts(each.headers)]
        if lasting:
            held_back = yield from admit_lasting(dialect, lasting)
            verdicts.update(held_back)
            parked = [each.job_id.bytes for each in lasting if isinstance(verdicts[each.job_id], Park)]
            yield from _set_state(dialect, parked, State.PARKED)
        return verdicts

    def started(self, dialect: Dialect, starting: Sequence[Candidate], held_back: Sequence[Candidate]) -> Plan[None]:
        for seconds, ids in _by_seconds(starting).items():
            yield from _set_state(dialect, ids, State.STARTED, due_at=_after(dialect, seconds))
        # Another policy has parked them: dispatches go on joining them, however long they have been due.
        yield from _set_state(dialect, [each.job_id.bytes for each in held_back], State.WAITING, due_at=f"'{PARKED}'")
        lasting = {each.job_id.bytes: each for each in held_back if lasts(each.headers)}
        if lasting:
            keys = {key: _key(each) for key, each in lasting.items()}
            yield from leave_running(dialect, keys, sees_all=True)

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        removed = [job.job_id.bytes for job in jobs if job.outcome in _REMOVALS]
        yield from _remove(dialect, removed)
        running = of_leaving([job for job in jobs if job.outcome is not Outcome.FORGOTTEN])
        sees_all = not any(job.in_session for job in jobs)
        return (yield from leave_running(dialect, running, sees_all=sees_all)) if running else PolicyNews()

    def cancelled_in_session(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[None]:
        yield from _remove(dialect, [job.job_id.bytes for job in jobs])

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:
        wanted = [
            Wanted(job.job_id, job.headers.unique.model_copy(update={"on_conflict": OnConflict.RAISE}), "")
            for job in jobs
            if job.headers.unique is not None and _takes_key(job.headers)
        ]
        refused: dict[JobId, Refusal] = {}
        for each in sorted(wanted, key=lambda one: one.terms.key_bytes):
            yield from _forget(dialect, [each.job_id.bytes])
            taken = yield from take_keys(dialect, [each])
            for job_id, holder in taken.refused.items():
                refused[job_id] = Refusal(f"the job {holder} has its key", holder)
        return refused

    def rescheduled(self, dialect: Dialect, job: Leaving, due: Statement) -> Plan[str | None]:
        """A claim goes by the time in the row of the policy. It waits for dispatches that are joining the job."""
        listed, parameters = dialect.id_list([job.job_id.bytes])
        yield (
            f"UPDATE queue_unique_jobs {dialect.primary_hint} SET due_at = {due[0]} "
            f"WHERE job_id IN ({listed}) AND state = {State.WAITING:d}",
            (*due[1], *parameters),
        )
        return None

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
        terms = job.headers.unique
        if terms is None:
            return ()
        rows, _ = yield from _read(dialect, [job.job_id.bytes], lock="")
        row = rows.get(job.job_id.bytes)
        until = terms.until if isinstance(terms.until, str) else f"{terms.until:g} s after its dispatch"
        lines = [f"unique until {until}, key {terms.key[:12]}…"]
        if row is not None and row.state == State.PARKED:
            lines.append("parked: a job of the same key runs")
        if row is not None and row.payload is not None:
            lines.append("a later dispatch has replaced its payload")
        return lines

    async def upkeep(self, database: Database) -> Upkeep:
        """Rows of jobs that started a while ago go. So do those of running jobs that do not run."""
        await _prune(database)
        jobs = await database.read_plain(running(dead))
        if not jobs:
            return Upkeep()
        return Upkeep(await database.write_plain(running(leave_dead, database.dialect, jobs)))


def _takes_key(headers: Headers) -> bool:
    """Whether the dispatch of the job has taken its key: those of chains, batches and schedules take none."""
    return headers.chain is None and headers.batch is None and headers.tick is None


def _key(candidate: Candidate) -> bytes:
    terms = candidate.headers.unique
    return b"" if terms is None else terms.key_bytes


def _by_seconds(candidates: Sequence[Candidate]) -> dict[float, list[bytes]]:
    """The ids of jobs, by the seconds for which their keys are held: 0 for those that are free with the start."""
    found: dict[float, list[bytes]] = {}
    for each in candidates:
        until = None if each.headers.unique is None else each.headers.unique.until
        found.setdefault(until if isinstance(until, float) else 0.0, []).append(each.job_id.bytes)
    return found


def _after(dialect: Dialect, seconds: float) -> str:
    """When the row of a job that starts is over: not before its key is. Upkeep does not look at it till then."""
    return dialect.seconds_from_now(seconds) if seconds else dialect.now


def _of_waiting(row: _Row | None, *, locked: bool) -> Verdict:
    if locked:
        return Leave()
    if row is None or row.state not in (State.WAITING, State.PARKED):
        # It does not have its key: an attempt that is repeated, or a job that a chain has inserted.
        return RUN
    if 0 < row.wait < _LONGEST:
        return Park(row.wait / MICROSECONDS)
    if row.payload is None:
        return RUN
    payload, version = unpack_payload(row.payload)
    return Run(payload, version)


_LONGEST = 50 * 365 * 86_400 * MICROSECONDS
"""What is due later has no time: another policy had parked it."""


def _read(
    dialect: Dialect, ids: Sequence[bytes], lock: str | None = None
) -> Plan[tuple[dict[bytes, _Row], set[bytes]]]:
    """The rows of jobs, which are locked, and the jobs whose rows another transaction has locked."""
    found: dict[bytes, _Row] = {}
    wait = f"({dialect.seconds_until('due_at')}) * {MICROSECONDS}"
    columns = f"job_id, state, {wait}, payload"
    for keys in chunked(sorted(ids)):
        rows = yield dialect.select_by_key(
            columns, "queue_unique_jobs", "job_id", keys, lock=dialect.skip_locked if lock is None else lock
        )
        for job_id, state, micros, payload in rows:
            found[bytes(job_id)] = _Row(state, raw_columns.seconds(micros) or 0.0, payload)  # no date: due
    missing = sorted(set(ids) - set(found))
    busy: set[bytes] = set()
    for keys in chunked(missing):
        there = yield dialect.select_by_key("job_id", "queue_unique_jobs", "job_id", keys)
        busy |= {bytes(row[0]) for row in there}
    return found, busy


def _set_state(dialect: Dialect, ids: Sequence[bytes], state: State, due_at: str | None = None) -> Plan[None]:
    """Of those of these jobs that wait, and whose rows this transaction has locked."""
    payload = ", payload = NULL" if state is State.STARTED else ""
    for keys in chunked(sorted(ids)):
        listed, parameters = dialect.id_list(keys)
        yield (
            f"UPDATE queue_unique_jobs {dialect.primary_hint} SET state = {state:d}, due_at = {due_at or dialect.now}"
            f"{payload} WHERE job_id IN ({listed}) AND {_WAITING}",
            parameters,
        )


def _remove(dialect: Dialect, ids: Sequence[bytes]) -> Plan[None]:
    """No dispatch joins these jobs any more. Waits for those that are joining one of them."""
    for keys in chunked(sorted(ids)):
        # Looked at without a lock: most of these jobs have no row that is in use.
        rows = yield dialect.select_by_key("job_id", "queue_unique_jobs", "job_id", keys, also=_WAITING)
        yield from _set_state(dialect, [bytes(row[0]) for row in rows], State.REMOVED)


def _forget(dialect: Dialect, ids: Sequence[bytes]) -> Plan[None]:
    listed, parameters = dialect.id_list(ids)
    yield f"DELETE FROM queue_unique_jobs WHERE job_id IN ({listed})", parameters


def _over(dialect: Dialect) -> Plan[list[tuple[bytes, bytes, bool]]]:
    """Jobs that started a while ago or were removed, their keys, and whether they were removed."""
    before = dialect.seconds_from_now(-_KEPT_SECONDS)
    rows = yield (
        "SELECT job_id, unique_key, state FROM queue_unique_jobs "
        f"WHERE state IN ({State.STARTED:d}, {State.REMOVED:d}) AND due_at < {before} LIMIT {_PRUNED_AT_ONCE}",
        (),
    )
    return [(bytes(job_id), bytes(key), state == State.REMOVED) for job_id, key, state in rows]


async def _prune(database: Database) -> None:
    """Each statement is a transaction of its own, so that no dispatch waits for a process."""
    dialect = database.dialect
    while rows := await database.read_plain(running(_over, dialect)):
        removed = 0
        for some in chunked(sorted(rows, key=lambda row: (row[1], row[0])), 50):
            ids, second = dialect.id_list([job_id for job_id, _, _ in some])
            over = f"AND (held_until IS NULL OR held_until <= {dialect.now})"
            await _free_keys(database, [row[:2] for row in some if not row[2]], over)
            # What an operator has removed holds its key no longer.
            await _free_keys(database, [row[:2] for row in some if row[2]], "")
            removed += await _write_alone(
                database,
                f"DELETE FROM queue_unique_jobs WHERE job_id IN ({ids}) "
                f"AND state IN ({State.STARTED:d}, {State.REMOVED:d}) AND NOT EXISTS (SELECT 1 FROM queue_unique "
                "WHERE queue_unique.unique_key = queue_unique_jobs.unique_key "
                "AND queue_unique.job_id = queue_unique_jobs.job_id)",
                second,
            )
        if removed < len(rows):
            return


async def _free_keys(database: Database, jobs: Sequence[tuple[bytes, bytes]], also: str) -> None:
    if jobs:
        keys, first = database.dialect.id_list([key for _, key in jobs])
        ids, second = database.dialect.id_list([job_id for job_id, _ in jobs])
        statement = f"DELETE FROM queue_unique WHERE unique_key IN ({keys}) AND job_id IN ({ids}) {also}"
        await _write_alone(database, statement, (*first, *second))


async def _write_alone(database: Database, statement: str, parameters: tuple[Any, ...]) -> int:
    async def write(connection: SqlConnection) -> int:
        return (await connection.exec_driver_sql(statement, parameters)).rowcount

    return await database.write_directly(write)
