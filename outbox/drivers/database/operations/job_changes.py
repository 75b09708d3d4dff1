"""When, where and how urgently a waiting job runs: an operator changes it in one transaction, or not at all."""

from __future__ import annotations

from typing import Any

from outbox.drivers.database.audit import recorded
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.leaving import leaving
from outbox.drivers.database.tables import PARKED
from outbox.drivers.values import JobChange, JobState
from outbox.errors import JobNotWaiting
from outbox.ids import JobId
from outbox.options import RELAY_PREFIX
from outbox.settlement import Outcome


async def change(database: Database, job_id: JobId, wanted: JobChange) -> str | None:
    """`JobInspection.change`."""

    def plan() -> Plan[str | None]:
        changing = _change(database.dialect, job_id, wanted)
        return recorded(database.dialect, changing, lambda queue: int(queue is not None))

    return await database.write(running(plan))


def _change(dialect: Dialect, job_id: JobId, wanted: JobChange) -> Plan[str | None]:
    """The row is locked before policies are asked, as a claim and a settlement do it."""
    rows = list((yield _locked(dialect), (job_id.bytes,)))
    if not rows:
        return None
    queue, policies, headers, state = rows[0]
    _check_state(job_id, queue, state, wanted)
    due = _due(dialect, wanted)
    if due is not None and isinstance(policies, int):
        asked = leaving(job_id, policies, headers, Outcome.RELEASED)
        refusal = yield from registry.rescheduled(dialect, asked, due)
        if refusal is not None:
            raise JobNotWaiting(f"the job {job_id} keeps its time: {refusal}")
    changed = yield _update(dialect, job_id, wanted, due)
    if not changed.rowcount:
        raise _running(job_id)
    return wanted.queue or str(queue)


def _check_state(job_id: JobId, queue: str, state: str | None, wanted: JobChange) -> None:
    """
    Raises:
        JobNotWaiting: a worker holds the job, it is on its way, or a policy has parked it and it is to get a time.
    """
    if queue.startswith(RELAY_PREFIX):
        target = queue.removeprefix(RELAY_PREFIX)
        raise JobNotWaiting(f"the job {job_id} is on its way to the connection {target}: change it there")
    if state == JobState.RESERVED:
        raise _running(job_id)
    if state == JobState.PARKED and wanted.has_time:
        raise JobNotWaiting(f"the job {job_id} keeps its time: a policy has parked it, `outbox show` says why")


def _running(job_id: JobId) -> JobNotWaiting:
    return JobNotWaiting(f"the job {job_id} runs: a job is changed while it waits. Cancel it to stop it")


def _locked(dialect: Dialect) -> str:
    """The row of a job, which is locked: queue, policies, headers, and whether it is held or parked. Parameters: id."""
    return (
        f"SELECT queue, policies, headers, CASE WHEN reserved_until > {dialect.now} THEN '{JobState.RESERVED.value}' "
        f"WHEN available_at >= '{PARKED}' THEN '{JobState.PARKED.value}' END FROM queue_jobs {dialect.primary_hint} "
        f"WHERE id = {dialect.placeholder} {dialect.for_update}"
    )


def _due(dialect: Dialect, wanted: JobChange) -> Statement | None:
    """When the job becomes due, as an expression; None where that stays."""
    mark = dialect.placeholder
    if wanted.at is not None:
        moment = dialect.timestamp(wanted.at)
        return f"CASE WHEN {mark} > {dialect.now} THEN {mark} ELSE {dialect.now} END", (moment, moment)
    if wanted.delay is not None:
        return dialect.now_plus(mark), (int(wanted.delay * MICROSECONDS),)
    return None


def _update(dialect: Dialect, job_id: JobId, wanted: JobChange, due: Statement | None) -> Statement:
    """Without a time, a job that is due joins the end of what is due: claims have passed all that was due before."""
    stays = f"CASE WHEN available_at < {dialect.now} THEN {dialect.now} ELSE available_at END"
    expression, parameters = due or (stays, ())
    values: list[Any] = list(parameters)
    columns = [f"available_at = {expression}"]
    for column, value in (("queue", wanted.queue), ("priority", wanted.priority)):
        if value is not None:
            columns.append(f"{column} = {dialect.placeholder}")
            values.append(value)
    return (
        f"{dialect.unchecked}UPDATE queue_jobs {dialect.primary_hint} SET {', '.join(columns)} "
        f"WHERE id = {dialect.placeholder} AND (reserved_until IS NULL OR reserved_until <= {dialect.now})",
        (*values, job_id.bytes),
    )
