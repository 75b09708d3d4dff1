"""What operators do to jobs with policies, which learn of it in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.base import Outcomes
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run, running
from outbox.drivers.database.finished_jobs import FinishedJobs
from outbox.drivers.database.jobs import direct_insert
from outbox.drivers.database.jobs.settle import follow_commit
from outbox.drivers.database.operations.batch_delete import BatchDelete, chunks
from outbox.drivers.database.policies import batch_operations, key_operations, registry
from outbox.drivers.database.policies.base import Chore, Leaving, Refusal
from outbox.drivers.database.policies.batch_end import end
from outbox.drivers.database.policies.leaving import gated_rows, leaving
from outbox.drivers.database.policies.schedules import unpark_following
from outbox.drivers.database.received_messages import ReceivedMessages
from outbox.drivers.database.tables import jobs
from outbox.drivers.filters import BlockedPage
from outbox.drivers.values import BatchStatus, PolicyNews, StoredJob
from outbox.envelope import Envelope
from outbox.errors import DuplicateJob
from outbox.events import KeyUnblocked
from outbox.ids import JobId
from outbox.settlement import LeavePolicies, Outcome, Settlement

_NONE: frozenset[bytes] = frozenset()


class Removal:
    """Tells policies of live or failed jobs that one transaction removes."""

    def __init__(self, database: Database, table: str, outcome: Outcome) -> None:
        self._database = database
        self._table = table
        self._outcome = outcome
        self.jobs: list[Leaving] = []
        """Those of them that have policies."""
        self.news = PolicyNews()

    async def leave(self, connection: AsyncConnection, keys: Sequence[bytes]) -> frozenset[bytes]:
        """`batch_delete.Gated`: all of them go."""
        dialect = self._database.dialect
        rows = await run(gated_rows(dialect, self._table, keys), connection)
        self.jobs = [Leaving(*row, self._outcome) for row in rows]
        self.news = await run(registry.settled(dialect, self.jobs), connection)
        return _NONE

    async def report(self) -> None:
        """After the commit."""
        news = self.news + await registry.committed(self._database, self.jobs)
        if news:
            self._database.on_policy_news(news)


class _RelayedEnds:
    """Tells policies how relayed jobs have ended whose rows one transaction removes."""

    def __init__(self, database: Database, outcomes: Outcomes) -> None:
        self._database = database
        self._outcomes = outcomes
        self._jobs: list[Leaving] = []
        self._news = PolicyNews()

    async def leave(self, connection: AsyncConnection, keys: Sequence[bytes]) -> frozenset[bytes]:
        """`batch_delete.Gated`: all of them go."""
        dialect = self._database.dialect
        rows = await run(gated_rows(dialect, jobs.name, keys), connection)
        ends = await self._outcomes([row.job_id for row in rows])
        self._jobs = [Leaving(*row, ends[row.job_id]) for row in rows]
        self._news = await run(registry.settled(dialect, self._jobs), connection)
        return _NONE

    async def report(self) -> None:
        """After the commit."""
        if self._jobs:
            news = self._news + await registry.committed(self._database, self._jobs)
            self._database.on_policy_news(news)


async def end_relayed(database: Database, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
    removed: set[bytes] = set()
    # A failed job that was retried meanwhile has a new row, which has not been relayed.
    was_relayed = or_(jobs.c.attempts > 0, jobs.c.policies.is_(None))
    for keys in chunks(job_ids):
        ends = _RelayedEnds(database, outcomes)
        removed.update(await BatchDelete(database, jobs, keys, was_relayed, gated=ends.leave).run())
        await ends.report()
    return [job_id for job_id in dict.fromkeys(job_ids) if job_id.bytes in removed]


class RelayedFailures:
    """Ends relayed jobs that have failed in the other store, of which no relay has heard yet."""

    def __init__(self, database: Database, queue: str) -> None:
        """``queue``: in which rows of that store's jobs wait."""
        self._database = database
        self._queue = queue
        self._ends = _RelayedEnds(database, _all_failed)

    async def end(self, connection: AsyncConnection, keys: Sequence[bytes]) -> None:
        """Have policies know that those of these failed jobs have failed that have a row, and remove it. What becomes
        of the failed jobs in this transaction follows that."""
        dialect = self._database.dialect
        rows = select(jobs.c.id).where(jobs.c.queue == self._queue, jobs.c.attempts > 0).with_for_update()
        found = [bytes(key) for key in await connection.scalars(dialect.by_ids(rows, jobs, keys))]
        if found:
            await self._ends.leave(connection, found)
            await connection.execute(dialect.delete(jobs, found))

    async def report(self) -> None:
        """After the commit."""
        await self._ends.report()


async def _all_failed(job_ids: Collection[JobId]) -> Mapping[JobId, Outcome]:
    return dict.fromkeys(job_ids, Outcome.FAILED)


class Return:
    """Asks policies about failed jobs that one transaction makes live again."""

    def __init__(self, database: Database, *, strict: bool) -> None:
        """``strict``: one that may not return is an error."""
        self._database = database
        self._strict = strict
        self._unblocked: list[KeyUnblocked] = []
        self.refusals: Mapping[JobId, Refusal] = {}

    @property
    def news(self) -> PolicyNews:
        return PolicyNews(events=tuple(self._unblocked))

    async def ask(self, connection: AsyncConnection, keys: Sequence[bytes]) -> frozenset[bytes]:
        """`batch_delete.Gated`: those that policies refuse stay.

        Raises:
            DuplicateJob: a policy refuses one, and that is an error.
        """
        dialect = self._database.dialect
        jobs = await run(gated_rows(dialect, "queue_failed_jobs", keys), connection)
        unblocking = await run(key_operations.unblocking(dialect, jobs), connection)
        self.refusals = refusals = await run(registry.retried(dialect, jobs), connection)
        self._unblocked = [event for job_id, event in unblocking.items() if job_id not in refusals]
        if self._strict and refusals:
            job_id, refusal = next(iter(refusals.items()))
            raise _refused(job_id, refusal)
        return frozenset(job_id.bytes for job_id in refusals)

    def report(self) -> None:
        """After the commit."""
        if self.news:
            self._database.on_policy_news(self.news)


def _refused(job_id: JobId, refusal: Refusal) -> DuplicateJob:
    return DuplicateJob(f"the failed job {job_id} stays failed: {refusal.reason}", refusal.holder)


class DatabasePolicies:
    """`PolicyStore`, in the tables of the policies."""

    def __init__(self, database: Database, chores: Sequence[Chore] = ()) -> None:
        """``chores`` are done in the upkeep too."""
        self._database = database
        self._chores = chores

    @property
    def on_news(self) -> Callable[[PolicyNews], None]:
        return self._database.on_policy_news

    @on_news.setter
    def on_news(self, hear: Callable[[PolicyNews], None]) -> None:
        self._database.on_policy_news = hear

    async def insert_unique(self, envelopes: Sequence[Envelope]) -> Mapping[JobId, JobId]:
        return await direct_insert.insert_unique(self._database, envelopes)

    async def explain(self, job: StoredJob) -> list[str]:
        if job.policies is None:
            return []
        asked = leaving(job.id, job.policies, job.headers, Outcome.RELEASED)
        return await self._database.read(running(registry.explain, self._database.dialect, asked))

    async def follow_commit(self, accepted: Sequence[Settlement]) -> PolicyNews:
        """After the commit of a job's own transaction, whose snapshot may be older than jobs that wait for its key or
        for its end."""
        news = await follow_commit(self._database, accepted)
        gated = [leaving(*each) for end in accepted for each in end.effects if isinstance(each, LeavePolicies)]
        news += await key_operations.let_in_next(self._database, [job.headers for job in gated])
        return news + await unpark_following(self._database, gated)

    async def upkeep(self) -> float | None:
        await ReceivedMessages(self._database).prune()
        await FinishedJobs(self._database).prune()
        done = await registry.upkeep(self._database, self._chores)
        if done.news:
            self.on_news(done.news)
        return done.due

    async def blocked_keys(self, key: str | None = None) -> dict[JobId, str]:
        return await key_operations.blocked(self._database, key)

    async def blocked_page(self, before: JobId | None = None) -> BlockedPage:
        return await key_operations.blocked_page(self._database, before)

    async def skip_failed(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await key_operations.skip(self._database, job_ids)

    async def batch(self, batch_id: JobId) -> BatchStatus | None:
        return next(iter(await batch_operations.statuses(self._database, [batch_id])), None)

    async def batches(self, limit: int) -> list[BatchStatus]:
        return await batch_operations.latest(self._database, limit)

    async def batch_members(self, batch_id: JobId, *, failed: bool = False, after: JobId | None = None) -> list[JobId]:
        return await batch_operations.members(self._database, batch_id, failed=failed, after=after)

    async def mark_cancelled(self, batch_id: JobId) -> bool:
        return await batch_operations.mark_cancelled(self._database, batch_id)

    async def end_batch(self, batch_id: JobId) -> None:
        if news := await end(self._database, [batch_id]):
            self.on_news(news)
