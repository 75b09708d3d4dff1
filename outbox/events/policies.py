"""What policies do: ordering keys, chains, batches, circuit breakers."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event
from outbox.ids import JobId
from outbox.settlement import Outcome


@dataclass(frozen=True, slots=True)
class KeyBlocked(Event):
    """A job with an ordering key has failed for good. What comes after it under ``key`` waits until it is retried, or
    until the key is unblocked."""

    key: str
    job_id: JobId


@dataclass(frozen=True, slots=True)
class KeyUnblocked(Event):
    """The failed job ``job_id`` blocks its ordering ``key`` no more: it was put back, or the key goes on without it."""

    key: str
    job_id: JobId


@dataclass(frozen=True, slots=True)
class ChainDispatched(Event):
    """A chain of ``jobs`` jobs was dispatched. Its first job, whose id is ``chain_id``, has a `JobDispatched`."""

    chain_id: JobId
    jobs: int
    in_session: bool


@dataclass(frozen=True, slots=True)
class ChainAdvanced(Event):
    """A job of a chain has completed, and the next one, ``job_id``, is in its queue. ``number`` is its place."""

    chain_id: JobId
    number: int
    job_id: JobId
    name: str
    queue: str


@dataclass(frozen=True, slots=True)
class ChainEnded(Event):
    """The job at the place ``number`` was the last of a chain and has completed, or has failed, or removed itself. When
    a failed one is put back, the chain goes on."""

    chain_id: JobId
    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class BatchDispatched(Event):
    """A batch of ``total`` members was dispatched, each of which has a `JobDispatched`. Inner batches have no event."""

    batch_id: JobId
    name: str
    total: int
    in_session: bool


@dataclass(frozen=True, slots=True)
class BatchEnded(Event):
    """No member of a batch is left. ``state`` is ``"finished"``, ``"failed"`` (more members have failed than it allows)
    or ``"cancelled"``. A batch whose failed members are put back ends again."""

    batch_id: JobId
    name: str
    state: str
    total: int
    failed: int


@dataclass(frozen=True, slots=True)
class CircuitOpened(Event):
    """Jobs of the class ``job`` have raised too often, or the probe of its circuit breaker has, and the class is paused
    for ``seconds``. ``error`` is the type of the last exception."""

    connection: str
    job: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CircuitClosed(Event):
    """The probe of a circuit breaker has succeeded, and the class ``job`` goes on."""

    connection: str
    job: str
