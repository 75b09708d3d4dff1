"""Optional part: finished jobs that are kept, and how far live ones are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outbox.drivers.filters import FinishedPage, FinishedPlace
from outbox.drivers.values import FinishedJob, JobProgress
from outbox.ids import JobId
from outbox.policies.results import Progress
from outbox.settlement import Fence


class FinishedJobStore(Protocol):
    """A store that keeps finished jobs, and how far live ones are."""

    async def get(self, job_id: JobId) -> FinishedJob | None: ...

    async def latest(self, queue: str | None = None, name: str | None = None, limit: int = 100) -> list[FinishedJob]:
        """Finished jobs (of a queue) (of a name), the latest first."""

    async def page(
        self, queue: str | None = None, name: str | None = None, limit: int = 100, after: FinishedPlace | None = None
    ) -> FinishedPage:
        """A page of finished jobs, the latest first, beginning after a place. It examines a bounded number of rows."""

    async def progress(self, job_id: JobId) -> JobProgress | None:
        """How far a live job is, by its last report."""

    async def report(self, reports: Sequence[tuple[Fence, Progress]]) -> None:
        """Write how far jobs are that are still held under these tokens."""

    async def prune(self) -> int:
        """Forget finished jobs whose time is over; return how many."""
