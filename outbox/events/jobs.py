"""What happens to jobs: from the dispatch to the end of each attempt."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event, JobEvent
from outbox.ids import JobId
from outbox.settlement import Failure, Outcome


@dataclass(frozen=True, slots=True)
class JobDispatched(Event):
    """A job was dispatched to ``connection``. ``in_session``: it exists if the session's transaction commits, and the
    event comes before that. Otherwise it is stored."""

    job_id: JobId
    name: str
    queue: str
    connection: str
    in_session: bool


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    """The handler is about to be called. ``rescued``: an earlier attempt ended with its worker."""

    rescued: bool = False
    waited: float | None = None
    """Seconds since the job could be claimed, by the store's clock; None where the store does not tell."""


@dataclass(frozen=True, slots=True)
class JobSettled(JobEvent):
    """The end of an attempt is in the store. ``seconds`` is how long the attempt took; ``delay`` is seconds until the
    next."""

    outcome: Outcome
    seconds: float
    delay: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class JobSkipped(JobEvent):
    """A due job was removed before it ran: by a policy, or because it came too late. ``attempt`` is that which would
    have begun."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobCancelled(JobEvent):
    """An operator removed the job while this worker ran it: its row disappeared while the lease was alive."""


@dataclass(frozen=True, slots=True)
class JobGivenBack(JobEvent):
    """This worker cannot run the job. It goes back for another worker with its attempt, and fails after an hour. Each
    worker process says it once for a job."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobOverdue(JobEvent):
    """A handler was told to stop and did not; its slot stays taken until it returns."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeaseLost(JobEvent):
    """Another worker may own the job now; whatever this one still does with it changes nothing in the store."""

    reason: str


@dataclass(frozen=True, slots=True)
class HookFailed(JobEvent):
    """``failed()`` of a job raised, or did not end in time. The job has failed all the same."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ResourceFailed(JobEvent):
    """A resource of the job was not closed after its end. How the job ended stays."""

    failure: Failure
