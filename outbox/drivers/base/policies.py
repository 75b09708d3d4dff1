"""Optional parts: jobs with policies, and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from outbox.drivers.filters import BlockedPage
from outbox.drivers.values import BatchStatus, LimitStatus, PolicyNews, StoredJob
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.policies.rate_limits import Terms
from outbox.settlement import MoveRates, Settlement


class PolicyStore(Protocol):
    """A store that decides about jobs with policies."""

    on_news: Callable[[PolicyNews], None]
    """Called when policies have made jobs claimable, or report something, through another verb than `settle`. It must
    be quick, and raises nothing."""

    async def insert_unique(self, envelopes: Sequence[Envelope]) -> Mapping[JobId, JobId]:
        """Store jobs as `JobWriter.insert` does, but those unique ones that meet a job of their key. Returns them, each
        with the id of the job that it met.

        Raises:
            DuplicateJob: one of them must not meet another. Nothing was stored.
        """

    async def upkeep(self) -> float | None:
        """Repair what crashes have left in the rows of policies, and do what they do by time. Seconds until it is to be
        called again; None at the usual interval."""

    async def follow_commit(self, accepted: Sequence[Settlement]) -> PolicyNews:
        """Do what policies do after a commit, for settlements that a transaction of the application has committed."""

    async def explain(self, job: StoredJob) -> list[str]:
        """Lines that tell an operator what its policies do with a live job."""

    async def batch(self, batch_id: JobId) -> BatchStatus | None:
        """How far a batch is; None where it is not known."""

    async def batches(self, limit: int) -> list[BatchStatus]:
        """The latest batches, the newest first."""

    async def batch_members(self, batch_id: JobId, *, failed: bool = False, after: JobId | None = None) -> list[JobId]:
        """Up to 1,000 members that have not ended, or that have failed, by id; ``after`` goes on."""

    async def mark_cancelled(self, batch_id: JobId) -> bool:
        """Cancel an open batch, whose members stay; False where there is none."""

    async def end_batch(self, batch_id: JobId) -> None:
        """End the batch if it has no member left."""

    async def blocked_keys(self, key: str | None = None) -> dict[JobId, str]:
        """The failed jobs that block ordering keys, or the key of this name, with the names of their keys."""

    async def blocked_page(self, before: JobId | None = None) -> BlockedPage:
        """The failed jobs that block ordering keys, the latest first, going on after the failed job ``before``. It
        looks at a bounded number of failed jobs.

        Raises:
            JobNotFound: ``before`` is gone, and with it the place where its page ended.
        """

    async def skip_failed(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Let the keys that these failed jobs block go on without them; return those that did block one."""


class LimitStore(Protocol):
    """A store that keeps limits."""

    async def list(self, most: int | None = None) -> Sequence[LimitStatus]:
        """Limits that an operator has set or that jobs have used, by name and key. With ``most``, at most so many of
        those that jobs have used, at a bounded cost: first those that jobs have waited for longest."""

    async def set(self, name: str, terms: Terms | None = None, *, concurrency: int | None = None) -> None:
        """Change a rate for all workers, or how many jobs of a class run at once."""

    async def reset(self, name: str) -> bool:
        """Have a limit be again as the jobs declare it; False where none was set."""

    async def terms(self, name: str) -> Terms | None:
        """The rate of this name that an operator has set, or that jobs have used without a key."""

    async def take(self, terms: Terms, cost: int, key: str | None) -> float:
        """Take ``cost`` from a rate: 0.0, or, where nothing was taken, seconds until it would be. What an operator has
        set goes before ``terms``."""

    async def move(self, refused: Sequence[MoveRates]) -> None:
        """Have the rates of jobs that a service has refused admit nothing for so many seconds."""
