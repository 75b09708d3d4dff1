"""What a fake records of a dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from outbox.envelope import Envelope, Headers, deserialize
from outbox.ids import JobId
from outbox.job import Job
from outbox.policies.batch import BatchPlan
from outbox.policies.chain import Link
from outbox.testing.boundaries import Fate

J = TypeVar("J", bound=Job)


@dataclass(eq=False, slots=True)
class Dispatched(Generic[J]):
    """One dispatched job. ``job`` was made of what would have been stored, as a worker makes it."""

    job: J
    id: JobId
    queue: str
    connection: str
    priority: int
    delay: float
    """Seconds; 0 where ``available_at`` was given."""
    available_at: datetime | None
    in_session: bool
    then: tuple[Job, ...] | None = None
    """The jobs that come after it, if it is the first of a chain; None if it is in none."""
    catch: Job | None = None
    """The job for a chain that fails."""
    batch_id: UUID | None = None
    """The batch that it is a member of."""
    plans: Mapping[str, BatchPlan] = field(default_factory=dict, repr=False)
    """By their ids, the batches that were dispatched with it."""
    fate: Fate = field(default=Fate.STORED, repr=False)

    def __str__(self) -> str:
        later = f", after {self.delay:g} s" if self.delay else ""
        later = f", at {self.available_at:%Y-%m-%d %H:%M:%S%z}" if self.available_at else later
        chain = "".join(f", then {job!r}" for job in self.then or ())
        chain += f", catch {self.catch!r}" if self.catch is not None else ""
        batch = f", in the batch {self.batch_id}" if self.batch_id is not None else ""
        return (
            f"{self.job!r}{chain}{batch} to the queue {self.queue!r} of {self.connection!r}{later}: {self.fate.value}"
        )


def dispatched_of(envelope: Envelope, connection: str, *, in_session: bool) -> Dispatched[Any]:
    headers = Headers.load(envelope.headers)
    chain, batch = headers.chain, headers.batch
    return Dispatched(
        deserialize(envelope.name, envelope.payload, envelope.headers),
        envelope.id,
        envelope.queue,
        connection,
        envelope.priority,
        envelope.delay,
        envelope.available_at,
        in_session,
        None if chain is None else tuple(map(job_of, chain.rest)),
        None if chain is None or chain.catch is None else job_of(chain.catch),
        None if batch is None else batch.id,
        (batch.plans if batch is not None else None) or {},
        Fate.IN_TRANSACTION if in_session else Fate.STORED,
    )


def job_of(link: Link) -> Job:
    return deserialize(link.name, link.payload, link.headers)
