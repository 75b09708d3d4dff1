"""Failed jobs in a database: each verb of `FailedJobStore`, and the module that does it."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations import failed_filters, failed_jobs
from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup
from outbox.drivers.values import FailedJob
from outbox.ids import JobId


class FailedJobs:
    """`FailedJobStore`, in the table `queue_failed_jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: JobId) -> FailedJob | None:
        return await failed_jobs.get_failed(self._database, job_id)

    async def find(self, digits: str) -> list[JobId]:
        return await failed_jobs.find_failed(self._database, digits)

    async def page(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        return await failed_jobs.list_failed(self._database, queue, limit, before, matching)

    async def groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        return await failed_filters.groups(self._database, queue, limit, matching)

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed_jobs.retry(self._database, job_ids)

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        return await failed_jobs.retry_all(self._database, queue, matching)

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        return await failed_jobs.unretryable(self._database, queue, limit, matching)

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await failed_jobs.forget(self._database, job_ids)

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        return await failed_jobs.flush(self._database, queue, older_than, matching)
