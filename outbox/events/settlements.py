"""Ends of attempts that a store does not take."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event, JobEvent
from outbox.ids import JobId
from outbox.settlement import Failure, Outcome


@dataclass(frozen=True, slots=True)
class SettlementRefused(JobEvent):
    """The store refuses the end of this attempt, for a reason that trying again would not change. The job is claimed
    again when its lease ends."""

    outcome: Outcome
    failure: Failure


@dataclass(frozen=True, slots=True)
class SettlementPostponed(JobEvent):
    """The store does not take the end of this attempt for now, though it takes others. It is tried again while the
    worker runs, and the job's lease is renewed."""

    outcome: Outcome
    failure: Failure


@dataclass(frozen=True, slots=True)
class SettlementsAbandoned(Event):
    """A worker stopped while its store was out of reach. These jobs run again when their leases end."""

    connection: str
    job_ids: tuple[JobId, ...]
