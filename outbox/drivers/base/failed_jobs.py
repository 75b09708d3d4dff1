"""Failed jobs: what every driver has for them, a way to read pages, and a store that keeps those of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from outbox.drivers.filters import ANY_FAILED, FailedFilter, FailedGroup, FailedPage
from outbox.drivers.values import FailedJob, HealthIssue
from outbox.ids import JobId


class FailedJobStore(Protocol):
    """What an operator needs of failed jobs."""

    async def get(self, job_id: JobId) -> FailedJob | None: ...

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:
        """Ids of failed jobs that begin or end with these 1 to 32 hexadecimal digits: at most 20. ``nearby``: a store
        may leave out those that it does not find at a bounded cost."""

    async def page(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        *,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        """Failed jobs, the latest failure first; ``before`` continues after the last id of an earlier page.

        Raises:
            JobNotFound: ``before`` is no longer there.
        """

    async def groups(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        """Failed jobs (of a queue) counted by name, type of exception and fingerprint, the largest groups first. It
        counts a bounded number of jobs: of greater groups, `FailedGroup.at_least` is true."""

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        """For each group, how many of its jobs failed in each of the last 24 hours, the oldest first. Great numbers
        are cut."""

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Put failed jobs back under the same id with no attempts counted, each in the transaction that removes its
        failed row; return those that there were. Where a live job has the id already, it stays as it is.

        Raises:
            InvalidPayload: a payload is broken JSON that the queue's table cannot hold; nothing is changed.
        """

    async def retry_all(self, queue: str | None = None, *, matching: FailedFilter = ANY_FAILED) -> int:
        """The same for every job (of a queue) that has failed by now; those with a broken payload stay. Return how many
        were put back."""

    async def unretryable(
        self, queue: str | None = None, limit: int = 100, *, matching: FailedFilter = ANY_FAILED
    ) -> list[JobId]:
        """Failed jobs (of a queue) that `retry` refuses."""

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Remove failed jobs for good; return those that there were."""

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, *, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """Remove all failed jobs (of a queue) (that failed more than ``older_than`` seconds ago); return how many."""


class FailedPages(Protocol):
    """A store that reads pages of failed jobs at a bounded cost."""

    async def page(
        self, queue: str | None, limit: int, before: JobId | None, *, matching: FailedFilter = ANY_FAILED
    ) -> FailedPage:
        """As `FailedJobStore.page`. It looks at a bounded number of failed jobs, however many match.

        Raises:
            JobNotFound: ``before`` is no longer there.
        """


StillFailed = Callable[[Sequence[FailedJob]], Awaitable[set[JobId]]]
"""Says which of these jobs are still failed in the store that they come from."""

BeforeRemoval = Callable[[Sequence[FailedJob]], Awaitable[None]]
"""What another store does with failed jobs before their rows are removed, in the same transaction."""


class FailedStore(Protocol):
    """A store that keeps the failed jobs of a connection that is not its own."""

    async def keep(self, jobs: Sequence[FailedJob], still: StillFailed) -> None:
        """Write these failed jobs in one transaction, in place of older rows of the same ids. With the rows written and
        locked, and before the commit, ``still`` says which of them are to be kept; the others are left out."""

    async def take(self, job_ids: Sequence[JobId], also: BeforeRemoval) -> list[JobId]:
        """Lock these rows, do ``also`` with what is in them, and remove them, in one transaction; return those that
        there were."""

    async def take_all(
        self, queue: str | None, older_than: float | None, also: BeforeRemoval, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """The same with all that match and had failed (so many seconds ago) when this began."""

    async def retry(self, job_ids: Sequence[JobId], also: BeforeRemoval) -> list[JobId]:
        """`take`, for jobs that become live again. Jobs with policies wait in the database for a relay."""

    async def retry_all(self, queue: str | None, also: BeforeRemoval, matching: FailedFilter = ANY_FAILED) -> int:
        """The same with all that match. Those that a policy refuses stay."""

    async def get(self, job_id: JobId) -> FailedJob | None: ...

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]: ...

    async def page(
        self, queue: str | None, limit: int, before: JobId | None, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedJob]: ...

    async def groups(self, queue: str | None, limit: int, matching: FailedFilter) -> list[FailedGroup]: ...

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]: ...

    async def counts(self) -> dict[str, int]:
        """How many there are, by queue."""

    async def check(self) -> None: ...

    async def health_issues(self) -> list[HealthIssue]: ...

    async def close(self) -> None: ...
