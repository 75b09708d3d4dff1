"""The end of a batch: a short transaction of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, run, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import batch_statements as statements
from outbox.drivers.database.policies.batch_statements import FAILURES, MEMBERS, BatchRow
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope, from_link
from outbox.events import BatchEnded
from outbox.ids import JobId
from outbox.policies.batch import Ran, is_over

_log = logging.getLogger("outbox.drivers")


async def end(database: Database, batch_ids: Iterable[JobId]) -> PolicyNews:
    """End those of these batches that have no member left, and then those that they were the last members of."""
    news = PolicyNews()
    waiting = set(batch_ids)
    while waiting:
        empty = await batches_without_members(database, sorted(waiting))
        waiting = set()
        for batch_id in empty:
            each, parent = await finish(database, batch_id)
            news += each
            if parent is not None:
                waiting.add(parent)
    return news


async def batches_without_members(database: Database, batch_ids: list[JobId]) -> list[JobId]:
    """Those of these batches whose members have all ended, as far as is committed."""
    dialect = database.dialect

    async def look(connection: SqlConnection) -> list[JobId]:
        return [each for each in batch_ids if not await run(statements.has_member(dialect, each), connection)]

    return await database.read_plain(look)


async def finish(database: Database, batch_id: JobId) -> tuple[PolicyNews, JobId | None]:
    """End a batch unless a member is left. Returns what came of it, and the batch that this one was a member of."""
    dialect = database.dialect
    return await database.write_plain(running(_finish_plan, dialect, batch_id))


def _finish_plan(dialect: Dialect, batch_id: JobId) -> Plan[tuple[PolicyNews, JobId | None]]:
    # Locked by another: it ends the batch, or adds to it. What it leaves undone is left to upkeep.
    row = yield from statements.read_batch(dialect, batch_id, dialect.skip_locked)
    if row is None or row.finished or (yield from _is_open(dialect, batch_id)):
        return PolicyNews(), None
    if row.problem:
        _log.warning("the batch %s does not end, and what follows it does not run: %s", batch_id, row.problem)
        return PolicyNews(), None
    failed, added, _ = yield from statements.counted(dialect, batch_id, bound=1)
    failing = is_over(failed, row.total + added, row.plan.allow_failures)
    jobs, ran = _follow_ups(row, failing=failing)
    listed, parameters = dialect.id_list([batch_id.bytes])
    yield (
        f"UPDATE queue_batches SET finished_at = {dialect.now}, ran = {int(row.ran | ran)} WHERE id = {listed}",
        parameters,
    )
    parent = row.plan.parent
    if parent is not None:
        yield from statements.delete_pairs(dialect, MEMBERS, [(parent, batch_id)])
        if failing and not row.cancelled:
            yield from statements.insert_pairs(dialect, FAILURES, [(parent, batch_id)])
    if jobs:
        # Which imports the registry of policies, and that imports this.
        from outbox.drivers.database.jobs.insert import own_insert_statements

        yield from own_insert_statements(dialect, jobs)
    state = "cancelled" if row.cancelled else "failed" if failing else "finished"
    event = BatchEnded(batch_id, row.plan.name, state, row.total + added, failed)
    return PolicyNews(frozenset(job.queue for job in jobs), (event,)), parent


def _is_open(dialect: Dialect, batch_id: JobId) -> Plan[bool]:
    """Whether a member is left, once the settlements have ended that the locking read waits for. Such a settlement can
    insert a member where that read has already been, in the place of the one that it waits at: so a plain read is
    last."""
    if (yield from statements.has_member(dialect, batch_id, dialect.for_update)):
        return True
    return bool(dialect.for_update) and (yield from statements.has_member(dialect, batch_id))


def _follow_ups(row: BatchRow, *, failing: bool) -> tuple[list[Envelope], Ran]:
    """The jobs to insert, and which they are: none that was inserted at an earlier end."""
    plan = row.plan
    wanted = [(Ran.FINALLY, plan.finally_)]
    if not row.cancelled:
        wanted.insert(0, (Ran.CATCH, plan.catch) if failing else (Ran.THEN, plan.then))
    chosen = [(bit, each) for bit, each in wanted if each is not None and not row.ran & bit]
    ran = Ran(sum(bit for bit, _ in chosen))
    return [from_link(each.job, each.id) for _, each in chosen], ran
