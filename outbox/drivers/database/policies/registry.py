"""All policies, in the order in which they are asked and lock their rows. Nothing else knows which there are."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies.base import (
    RUN,
    Candidate,
    Chore,
    Leaving,
    Park,
    PolicyRows,
    Refusal,
    Returning,
    Run,
    Upkeep,
    Verdict,
)
from outbox.drivers.database.policies.batches import BatchRows
from outbox.drivers.database.policies.keys import KeyRows
from outbox.drivers.database.policies.rates import RateRows
from outbox.drivers.database.policies.schedules import ScheduleRows
from outbox.drivers.database.policies.unique import UniqueRows
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope
from outbox.errors import OutboxError
from outbox.ids import JobId

T = TypeVar("T")

POLICIES: list[PolicyRows] = [UniqueRows(), KeyRows(), RateRows(), BatchRows(), ScheduleRows()]
"""In the order of their bits. A chain keeps no rows."""

_log = logging.getLogger("outbox.drivers")


def _with_policies(jobs: Sequence[T]) -> Iterator[tuple[PolicyRows, list[T]]]:
    # Plain integers: `&` of two flags makes a third.
    bits = [(_bits(job), job) for job in jobs]
    for policy in POLICIES:
        bit = int(policy.policy)
        mine = [job for has, job in bits if has & bit]
        if mine:
            yield policy, mine


def _bits(job: Any) -> int:
    return int((job.row.policies if isinstance(job, Candidate) else job.policies) or 0)


def dispatched(dialect: Dialect, jobs: Sequence[Envelope]) -> Plan[None]:
    """Write what policies keep of ``jobs``, which were just inserted."""
    gated = [job for job in jobs if job.policies is not None]
    for policy, mine in _with_policies(gated) if gated else ():
        yield from policy.dispatched(dialect, mine)


def admit(dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[dict[JobId, Verdict]]:
    """A verdict for each candidate: that of the first policy that does not admit it. Those with `Park()` are parked
    then."""
    verdicts: dict[JobId, Verdict] = {candidate.job_id: RUN for candidate in candidates}
    admitted: list[tuple[PolicyRows, list[Candidate]]] = []
    left, parked = list(candidates), list[Candidate]()
    for policy in POLICIES:
        bit = int(policy.policy)
        if behind := [each for each in parked if each.row.policies & bit]:
            yield from policy.parked_before(dialect, behind)
        mine = [each for each in left if each.row.policies & bit]
        if not mine:
            continue
        found = yield from policy.admit(dialect, mine)
        changed = {job_id: verdict for job_id, verdict in found.items() if verdict is not RUN}
        for job_id, verdict in changed.items():
            verdicts[job_id] = _after(verdicts[job_id], verdict)
        refused = {job_id for job_id in changed if not isinstance(verdicts[job_id], Run)}
        if refused:
            parked += [each for each in mine if each.job_id in refused and verdicts[each.job_id] == Park()]
            mine = [each for each in mine if each.job_id not in refused]
            left = [each for each in left if each.job_id not in refused]
        admitted.append((policy, mine))
    # Before what follows: a job that is held back lets in others, which this claim may have found as well.
    for some in chunked(sorted(each.job_id.bytes for each in parked)):
        yield dialect.park(len(some)), tuple(some)
    running = {each.job_id for each in left} if len(admitted) > 1 else None
    for policy, mine in admitted:
        if mine:
            starting = mine if running is None else [each for each in mine if each.job_id in running]
            held_back = [] if running is None else [each for each in mine if each.job_id not in running]
            yield from policy.started(dialect, starting, held_back)
    return verdicts


def _after(before: Verdict, verdict: Verdict) -> Verdict:
    """The verdict of a policy on a job that the policies before it have admitted."""
    if not (isinstance(before, Run) and isinstance(verdict, Run)):
        return verdict
    given = before if verdict.payload is None else verdict
    return Run(given.payload, given.version, before.replaces + verdict.replaces)


def settled(dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
    """Tell the policies of ``jobs``; return what came of it."""
    news = PolicyNews()
    for policy, mine in _with_policies(jobs):
        news += yield from policy.settled(dialect, mine)
    return news


def cancelled_in_session(dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[None]:
    for policy, mine in _with_policies(jobs):
        yield from policy.cancelled_in_session(dialect, mine)


def retried(dialect: Dialect, jobs: Sequence[Returning]) -> Plan[dict[JobId, Refusal]]:
    """The failed jobs that may not become live again, with the first reason for each."""
    refusals: dict[JobId, Refusal] = {}
    for policy, mine in _with_policies(jobs):
        asked = [job for job in mine if job.job_id not in refusals]
        if asked:
            refusals.update((yield from policy.retried(dialect, asked)))
    return refusals


def rescheduled(dialect: Dialect, job: Leaving, due: Statement) -> Plan[str | None]:
    """Why a job must keep its time, as the first policy says; None where it gets another."""
    for policy, _ in _with_policies([job]):
        refusal = yield from policy.rescheduled(dialect, job, due)
        if refusal is not None:
            return refusal
    return None


def explain(dialect: Dialect, job: Leaving) -> Plan[list[str]]:
    lines: list[str] = []
    for policy, _ in _with_policies([job]):
        lines += yield from policy.explain(dialect, job)
    return lines


def following() -> int:
    """The bits of the policies that do something after the commit of a settlement."""
    return sum(int(policy.policy) for policy in POLICIES if type(policy).committed is not PolicyRows.committed)


async def committed(database: Database, jobs: Sequence[Leaving]) -> PolicyNews:
    """What follows the commit of a settlement. The settlement stands, whatever becomes of this: upkeep repairs it."""
    news = PolicyNews()
    for policy, mine in _with_policies(jobs):
        try:
            news += await policy.committed(database, mine)
        except OutboxError as error:
            _log.warning("what follows the end of jobs is left to the upkeep of workers: %s", error)
    return news


async def upkeep(database: Database, chores: Sequence[Chore] = ()) -> Upkeep:
    """The upkeep of all policies that have rows and of the ``chores`` that need it, and when the first of them wants
    the next."""
    news = PolicyNews()
    due: float | None = None
    for keep_up in await database.read_plain(partial(_in_use, database, chores)):
        each = await keep_up()
        news += each.news
        due = _earliest((due, each.due))
    return Upkeep(news, due)


async def _in_use(
    database: Database, chores: Sequence[Chore], connection: SqlConnection
) -> list[Callable[[], Awaitable[Upkeep]]]:
    """One statement, since nearly all databases use few policies."""
    asked: list[tuple[str, Callable[[], Awaitable[Upkeep]]]] = [
        (" OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in each.tables) or "1", partial(each.upkeep, database))
        for each in POLICIES
    ]
    asked += [(chore.needs_upkeep(), chore.upkeep) for chore in chores]
    rows = await connection.exec_driver_sql(f"SELECT {', '.join(condition for condition, _ in asked)}", ())
    (used,) = rows
    return [keep_up for (_, keep_up), is_used in zip(asked, used, strict=True) if is_used]


def _earliest(moments: Iterable[float | None]) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)
