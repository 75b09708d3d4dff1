"""Jobs with a key: limits, order and turns. `policies.keys` decides; the rows are in ``queue_keyed_jobs``.

Claims and settlements lock the slots of the keys, claims with SKIP LOCKED. Dispatches only insert rows. A job is parked
when a claim finds it. It stays parked only while a held, a blocking or a claimable job of the key will let it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies import key_operations
from outbox.drivers.database.policies import key_statements as statements
from outbox.drivers.database.policies.base import Candidate, Leaving, PolicyRows, Refusal, Returning, Upkeep, Verdict
from outbox.drivers.database.policies.key_admission import Admission
from outbox.drivers.database.policies.key_release import let_in
from outbox.drivers.database.policies.key_statements import KeyedRow, NewRow
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope, Headers
from outbox.events import KeyBlocked
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.policies.keys import Kind, State
from outbox.settlement import PUT_BACK, Outcome

_COMPLETED = Outcome.COMPLETED
"""Python 3.11 finds a member of an enumeration by calling a function; this is for every job with a key."""


class KeyRows(PolicyRows):
    policy = Policies.KEY
    tables = ("queue_keyed_jobs",)

    def dispatched(self, dialect: Dialect, jobs: Sequence[Envelope]) -> Plan[None]:
        rows = statements.new_rows([(job, Headers.load(job.headers)) for job in jobs])
        strict = [row for row in rows if row.kind is Kind.ORDERING and getattr(row.key, "strict", False)]
        if strict:
            yield from statements.lock_dispatch_slots(dialect, [row.hashed for row in strict])
        yield from statements.insert_rows(dialect, rows)

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
        return Admission(dialect, candidates).decide()

    def started(self, dialect: Dialect, starting: Sequence[Candidate], held_back: Sequence[Candidate]) -> Plan[None]:  # noqa: ARG002
        if not held_back:
            return
        # They keep their places, and are asked about again. Others may run meanwhile, where their keys have room.
        rows = yield from statements.rows_of(dialect, [bytes(each.row.id) for each in held_back])
        held = [row for row in rows if row.state is State.HELD]
        yield from statements.set_state([row.seq for row in held], State.WAITING)
        limited = [row for row in held if row.kind is Kind.CONCURRENCY]
        if limited:
            yield from let_in(dialect, limited, [each.headers for each in held_back])

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        keys = [key for job in jobs for key in statements.hashes_of(job.headers)]
        # Before the locks, for which others wait: what changes these rows has locked their jobs first.
        rows = yield from statements.rows_of(dialect, [job.job_id.bytes for job in jobs])
        yield from statements.lock_slots(dialect, keys, wait=True)
        ends = {job.job_id.bytes: job for job in jobs}
        gone: list[int] = []
        waiting: list[int] = []
        blocking: list[KeyedRow] = []
        for row in rows:
            outcome = ends[row.job_id].outcome
            if outcome is _COMPLETED:
                gone.append(row.seq)
            elif outcome is Outcome.FAILED and row.kind is Kind.ORDERING and row.size:
                blocking.append(row)
            elif outcome in PUT_BACK:
                waiting.append(row.seq)
            elif outcome is not Outcome.DEFERRED:
                gone.append(row.seq)
        yield from statements.delete_rows(gone)
        yield from statements.set_state(waiting, State.WAITING)
        yield from statements.set_state([row.seq for row in blocking], State.BLOCKING)
        released = yield from let_in(dialect, rows, [job.headers for job in jobs])
        return PolicyNews(
            released.queues, tuple(KeyBlocked(_name(ends[row.job_id]), JobId(bytes=row.job_id)) for row in blocking)
        )

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:
        keys = [key for job in jobs for key in statements.hashes_of(job.headers)]
        yield from statements.lock_slots(dialect, keys, wait=True)
        rows = yield from statements.rows_of(dialect, [job.job_id.bytes for job in jobs])
        yield from statements.set_state([row.seq for row in rows], State.WAITING)
        there = {(row.job_id, row.kind) for row in rows}
        missing = [
            NewRow(_returning(job), kind, key)
            for job in jobs
            if job.headers.keys is not None
            for kind, key in job.headers.keys.kinds()
            if (job.job_id.bytes, kind) not in there
        ]
        yield from statements.insert_rows(dialect, [row for row in missing if row.kind is Kind.ORDERING], first=True)
        yield from statements.insert_rows(dialect, [row for row in missing if row.kind is not Kind.ORDERING])
        return {}

    def rescheduled(self, dialect: Dialect, job: Leaving, due: Statement) -> Plan[str | None]:
        """Its place under a key is by the time at which it becomes due. Under an ordering key, that stays."""
        yield from statements.lock_slots(dialect, statements.hashes_of(job.headers), wait=True)
        rows = yield from statements.rows_of(dialect, [job.job_id.bytes])
        if any(row.kind is Kind.ORDERING for row in rows):
            return "its ordering key keeps the order of the dispatches"
        if any(row.state is not State.WAITING for row in rows):
            return "its key has given it its turn"
        yield from statements.set_moment([row.seq for row in rows], due)
        return None

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
        return (yield from key_operations.lines(dialect, job.job_id, job.headers))

    async def upkeep(self, database: Database) -> Upkeep:
        return Upkeep(await key_operations.repair(database))


def _name(job: Leaving) -> str:
    ordering = None if job.headers.keys is None else job.headers.keys.ordering
    return "" if ordering is None else ordering.name


def _returning(job: Returning) -> Envelope:
    return Envelope(job.job_id, "", "", 0, "")
