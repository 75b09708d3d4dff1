"""Batches. A member's row leaves with its settlement; the end of the batch is decided after the commit of that.

The last to commit sees that no member is left. Each settlement that ended a member looks. If two of them were the last
at the same time, both look. The row of the batch lets one of them write the end. Upkeep finds the batches whose last
settlement was followed by a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import batch_statements as statements
from outbox.drivers.database.policies.base import (
    Candidate,
    Leaving,
    PolicyRows,
    Refusal,
    Returning,
    Skip,
    Upkeep,
    Verdict,
)
from outbox.drivers.database.policies.batch_end import end
from outbox.drivers.database.policies.batch_statements import FAILURES, MEMBERS, Pair
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope, Headers
from outbox.errors import BatchClosed
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.policies.batch import BatchPlan
from outbox.settlement import ENDS, Outcome

_KEPT_SECONDS = 7 * 86_400
_PORTION = 500


class BatchRows(PolicyRows):
    policy = Policies.BATCH
    tables = ("queue_batches",)

    def dispatched(self, dialect: Dialect, jobs: Sequence[Envelope]) -> Plan[None]:
        """
        Raises:
            BatchClosed: jobs are added to a batch that is over.
        """
        plans: dict[JobId, BatchPlan] = {}
        members: list[Pair] = []
        inside: set[JobId] = set()
        in_chain: set[JobId] = set()
        for job in jobs:
            header = Headers.load(job.headers).batch
            if header is not None:
                plans.update({JobId(key): plan for key, plan in (header.plans or {}).items()})
                members.append((header.id, job.id))
                inside |= {header.id} if header.inside else set()
                in_chain |= {job.id} if header.in_chain else set()
        added: dict[JobId, list[JobId]] = {}
        for batch_id, member in members:
            if batch_id not in plans and member not in in_chain:
                added.setdefault(batch_id, []).append(member)
        for batch_id in sorted(set(added) - inside):
            yield from _check_open(dialect, batch_id)
        yield from statements.insert_batches(dialect, plans)
        members += [(plan.parent, batch_id) for batch_id, plan in plans.items() if plan.parent is not None]
        yield from statements.insert_pairs(dialect, MEMBERS, members)
        for batch_id, some in added.items():
            yield from statements.add_to_total(dialect, batch_id, some[0], len(some))

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
        ids = sorted({each.headers.batch.id.bytes for each in candidates if each.headers.batch is not None})
        if not ids:
            # Rows of other programs can have the bit without the header.
            return {}
        listed, parameters = dialect.id_list(ids)
        rows = yield (
            f"SELECT id FROM queue_batches WHERE id IN ({listed}) AND cancelled_at IS NOT NULL",
            parameters,
        )
        cancelled = {bytes(batch_id) for (batch_id,) in rows}
        return {
            each.job_id: Skip("its batch was cancelled")
            for each in candidates
            if each.headers.batch is not None and each.headers.batch.id.bytes in cancelled
        }

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        ended = [pair for job in jobs if job.outcome in ENDS for pair in _pairs([job])]
        failed = [pair for job in jobs if job.outcome is Outcome.FAILED for pair in _pairs([job])]
        yield from statements.delete_pairs(dialect, MEMBERS, ended)
        yield from statements.insert_pairs(dialect, FAILURES, failed)
        return PolicyNews()

    def cancelled_in_session(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[None]:
        """Upkeep sees whether it was the last one."""
        yield from statements.delete_pairs(dialect, MEMBERS, _pairs(jobs))

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:
        refused: dict[JobId, Refusal] = {}
        for batch_id in sorted({batch_id for batch_id, _ in _pairs(jobs)}):
            mine = [pair for pair in _pairs(jobs) if pair[0] == batch_id]
            row = yield from statements.read_batch(dialect, batch_id, dialect.for_update)
            if row is not None and row.cancelled:
                refused.update({member: Refusal("its batch was cancelled") for _, member in mine})
            elif row is not None:
                yield from _reopen(dialect, row, mine)
        return refused

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
        lines: list[str] = []
        for batch_id, _ in _pairs([job]):
            row = yield from statements.read_batch(dialect, batch_id)
            name = f" `{row.plan.name}`" if row is not None and row.plan.name else ""
            lines.append(f"member of the batch{name} {batch_id}")
        return lines

    async def committed(self, database: Database, jobs: Sequence[Leaving]) -> PolicyNews:
        return await end(database, {pair[0] for job in jobs if job.outcome in ENDS for pair in _pairs([job])})

    async def upkeep(self, database: Database) -> Upkeep:
        """End the batches without a member; forget those that ended a week ago."""
        dialect = database.dialect

        async def look(connection: SqlConnection) -> list[tuple[bytes, bool]]:
            rows = await connection.exec_driver_sql(
                f"SELECT id, finished_at IS NOT NULL FROM queue_batches WHERE finished_at IS NULL "
                f"AND NOT EXISTS (SELECT 1 FROM {MEMBERS} WHERE batch_id = id) "
                f"OR finished_at < {dialect.seconds_from_now(-_KEPT_SECONDS)} LIMIT {_PORTION}",
                (),
            )
            return [(bytes(batch_id), bool(finished)) for batch_id, finished in rows]

        found = await database.read_plain(look)
        old = sorted(batch_id for batch_id, finished in found if finished)
        if old:
            await database.write_plain(running(_forget, dialect, old))
        news = await end(database, {JobId(bytes=batch_id) for batch_id, finished in found if not finished})
        return Upkeep(news, 0.0 if len(found) == _PORTION and (old or news) else None)


def _pairs(jobs: Iterable[Leaving | Returning]) -> list[Pair]:
    return [(job.headers.batch.id, job.job_id) for job in jobs if job.headers.batch is not None]


def _check_open(dialect: Dialect, batch_id: JobId) -> Plan[None]:
    row = yield from statements.read_batch(dialect, batch_id, dialect.for_share)
    if row is None or row.finished or row.cancelled:
        what = "is not known" if row is None else "was cancelled" if row.cancelled else "has ended"
        raise BatchClosed(f"the batch {batch_id} {what}: dispatch these jobs without it, or as a new batch")


def _reopen(dialect: Dialect, row: statements.BatchRow, pairs: Sequence[Pair]) -> Plan[None]:
    """Failed members of a batch return; so does the batch to the one that it is a member of."""
    yield from statements.insert_pairs(dialect, MEMBERS, pairs)
    yield from statements.delete_pairs(dialect, FAILURES, pairs)
    if not row.finished:
        return
    listed, parameters = dialect.id_list([row.id.bytes])
    yield f"UPDATE queue_batches SET finished_at = NULL WHERE id = {listed}", parameters
    if row.plan.parent is not None:
        parent = yield from statements.read_batch(dialect, row.plan.parent, dialect.for_update)
        if parent is not None:
            yield from _reopen(dialect, parent, [(parent.id, row.id)])


def _forget(dialect: Dialect, ids: Sequence[bytes]) -> Plan[None]:
    listed, parameters = dialect.id_list(ids)
    for table in (FAILURES, statements.ADDITIONS):
        yield f"DELETE FROM {table} WHERE batch_id IN ({listed})", parameters
    yield f"DELETE FROM queue_batches WHERE id IN ({listed})", parameters
