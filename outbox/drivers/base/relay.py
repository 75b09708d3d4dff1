"""Optional parts: the two ends of a relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import MoveRates, Outcome

Outcomes = Callable[[Collection[JobId]], Awaitable[Mapping[JobId, Outcome]]]


class RelaySource(Protocol):
    """What a database owes to a relay, which moves jobs from it to another store."""

    async def written(self, job_ids: Sequence[JobId]) -> dict[JobId, datetime]:
        """When these live jobs were written, by the store's clock. Jobs that have ended are left out."""

    async def queues(self, job_ids: Sequence[JobId]) -> dict[JobId, str]:
        """The queues of the rows of those of these jobs that are for another store."""

    async def end_relayed(self, job_ids: Sequence[JobId], outcomes: Outcomes) -> list[JobId]:
        """Remove the rows of jobs that have ended in the other store, held or not; return those that there were.
        ``outcomes`` is asked how those with policies have ended."""

    async def has_unrelayed(self, queue: str) -> bool:
        """Whether the other store may lack a job of this queue: no relay has put it back yet, or one holds it."""


class RelayTarget(Protocol):
    """What a store owes to a relay, which moves jobs to it from a database."""

    on_relayed_end: Callable[[], None]
    """Called when relayed jobs have ended through this driver, in the thread that settled them."""
    on_refused: Callable[[Sequence[MoveRates]], None]
    """Called with the rates of jobs that a service has refused, in the thread that settled them."""

    async def insert_once(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        """Store each job once, however often it is sent; return those that were stored before and have ended since.
        Jobs that the store has lost are stored again."""

    async def take_ended(self) -> dict[JobId, str]:
        """Take up to 1,000 relayed jobs of each queue that have ended, with their queues. Each is returned once."""

    async def outcomes(self, queues: Mapping[JobId, str]) -> dict[JobId, Outcome]:
        """How relayed jobs with policies have ended, by their queues: completed, failed or cancelled by themselves.
        Others are left out. `forget_accepted` forgets it."""

    async def forget_accepted(self, queues: Mapping[JobId, str]) -> None:
        """These jobs are not sent again."""
