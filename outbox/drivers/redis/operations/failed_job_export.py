"""Failed jobs on their way from Redis to the database's `queue_failed_jobs`.

A failed job first moves within Redis, in the script that checks its fence; that is the end of the attempt. From there
it is copied to the database and then removed from Redis. Whatever breaks off in between, the job is in one of the two,
and no row was written without the fence. What can happen, step by step: `docs/decisions/0003-failed-jobs-of-redis.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from outbox.drivers.base import FailedStore
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import score
from outbox.drivers.redis.jobs.insert import insert
from outbox.drivers.redis.jobs.relay_target import forget_relayed
from outbox.drivers.redis.operations.failed_jobs import FailedJobs, Place
from outbox.drivers.values import FailedJob, HealthIssue
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable, OutboxError
from outbox.ids import JobId

_log = logging.getLogger("outbox.drivers")

_BATCH = 100
CHECK_SECONDS = 3.0
"""For which a start waits until the database answers."""
_CLOSE_SECONDS = 10.0
"""For which the end of a driver waits until failed jobs are moved."""


class ExportedFailedJobs(FailedJobs):
    """`FailedJobStore` over both: every verb first moves on what is still in Redis, then works on the database."""

    def __init__(self, store: Store, there: FailedStore) -> None:
        super().__init__(store)
        self._there = there
        self._here = FailedJobs(store)
        self._one_at_a_time = asyncio.Lock()
        self.moving: asyncio.Task[None] | None = None
        """What moves them on in the background, now or the last time."""
        self._more = False
        self._complained = False

    def arrived(self) -> None:
        """Move them on in the background: a database that does not answer delays no caller."""
        self._more = True
        if self.moving is None or self.moving.done():
            self.moving = asyncio.get_running_loop().create_task(self._move_while_there_are_more())

    async def _move_while_there_are_more(self) -> None:
        while self._more:
            self._more = False
            await self._try_to_hand_over()

    async def _try_to_hand_over(self) -> None:
        try:
            await self.hand_over()
        except OutboxError as error:
            if not self._complained:
                _log.warning("failed jobs stay in Redis until the database takes them: %s", error)
            self._complained = True
        else:
            self._complained = False

    async def hand_over(self) -> None:
        """Move everything on that is in Redis now.

        Raises:
            BackendUnavailable: one of the two stores does not answer; what was not moved is still in Redis.
        """
        async with self._one_at_a_time:
            while left := await self._here.list_oldest(_BATCH):
                await self._there.keep(left, self._still)
                await self._here.forget_exactly([_place(job) for job in left])

    async def _still(self, jobs: Sequence[FailedJob]) -> set[JobId]:
        """Those whose failure is still in Redis, this one and not a later one of the same job."""
        return await self._here.present([_place(job) for job in jobs])

    async def _put_back(self, jobs: Sequence[FailedJob]) -> None:
        await self._drop(jobs)
        # A relay would take the job of a known id for one that has ended.
        await forget_relayed(self._store, {job.id: job.queue for job in jobs if job.policies is not None})
        plain = [job for job in jobs if job.policies is None]
        await insert(
            self._store,
            [Envelope(job.id, job.queue, job.name, job.priority, job.payload, job.headers) for job in plain],
        )

    async def _drop(self, jobs: Sequence[FailedJob]) -> None:
        """A handover of one of them that is under way may not write its row again."""
        await self._here.forget([job.id for job in jobs])

    async def check(self) -> None:
        # Workers can do without the database until an operator asks for failed jobs. One that hangs would keep them
        # from starting for a minute.
        with suppress(BackendUnavailable, TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await self._there.check()

    async def health_issues(self) -> list[HealthIssue]:
        return await self._there.health_issues()

    async def counts(self) -> dict[str, int]:
        await self.hand_over()
        return await self._there.counts()

    async def close(self) -> None:
        moving, self.moving = self.moving, None
        if moving is not None and not moving.done():
            await asyncio.wait([moving], timeout=_CLOSE_SECONDS)
            moving.cancel()
        await self._there.close()

    async def get(self, job_id: JobId) -> FailedJob | None:
        await self.hand_over()
        return await self._there.get(job_id)

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        await self.hand_over()
        return await self._there.find(digits, nearby=nearby)

    async def page(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        await self.hand_over()
        return await self._there.page(queue, limit, before, matching)

    async def groups(
        self, queue: str | None = None, limit: int = 100, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        await self.hand_over()
        return await self._there.groups(queue, limit, matching)

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        await self.hand_over()
        return await self._there.hours(groups)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        await self.hand_over()
        return await self._there.retry(job_ids, self._put_back)

    async def retry_all(self, queue: str | None = None, matching: FailedFilter = ANY_FAILED) -> int:
        await self.hand_over()
        return await self._there.retry_all(queue, self._put_back, matching)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        await self.hand_over()
        return await self._there.take(job_ids, self._drop)

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, matching: FailedFilter = ANY_FAILED
    ) -> int:
        await self.hand_over()
        return await self._there.take_all(queue, older_than, self._drop, matching)


def _place(job: FailedJob) -> Place:
    return Place(score(job.failed_at), job.id.bytes, job.queue)
