"""What happens at a dispatch and in a worker, as values. Code emits them; logs and telemetry listen from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from outbox.ids import JobId
from outbox.settlement import Failure, Outcome

_log = logging.getLogger("outbox.events")


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


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
class JobEvent(Event):
    job_id: JobId
    name: str
    queue: str
    connection: str
    attempt: int


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
class LeaseLost(JobEvent):
    """Another worker may own the job now; whatever this one still does with it changes nothing in the store."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobCancelled(JobEvent):
    """An operator removed the job while this worker ran it: its row disappeared while the lease was alive."""


@dataclass(frozen=True, slots=True)
class JobSkipped(JobEvent):
    """A due job was removed before it ran: by a policy, or because it came too late. ``attempt`` is that which would
    have begun."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobGivenBack(JobEvent):
    """This worker cannot run the job. It goes back for another worker with its attempt, and fails after an hour. Each
    worker process says it once for a job."""

    reason: str


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
class BulkOperationStarted(Event):
    """A worker has begun with a bulk operation, which ``by`` asked for. ``total`` jobs matched when it was made; None:
    there were too many to count."""

    operation_id: JobId
    verb: str
    by: str | None
    total: int | None


@dataclass(frozen=True, slots=True)
class BulkOperationEnded(Event):
    """A bulk operation has been worked off, or was ``stopped``: ``done`` jobs were changed, and ``refused`` failed jobs
    stay."""

    operation_id: JobId
    verb: str
    by: str | None
    done: int
    refused: int
    stopped: bool


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
class Paused(Event):
    """Claims from ``connection`` leave something out from now on. ``kind`` is ``"connection"``, ``"queue"``, ``"job"``
    or ``"key"``, and ``name`` which one. ``until`` is None where it lasts until it is resumed."""

    connection: str
    kind: str
    name: str
    reason: str | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A pause is over. ``by_itself``: its time was up; a worker says so within a minute or so."""

    connection: str
    kind: str
    name: str
    by_itself: bool


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


@dataclass(frozen=True, slots=True)
class ScheduleChanged(Event):
    """`outbox.schedules` was called. ``change`` is ``"added"``, ``"changed"``, ``"removed"``, ``"paused"`` or
    ``"resumed"``. ``in_session``: it holds if the session's transaction commits."""

    schedule: str
    change: str
    in_session: bool


@dataclass(frozen=True, slots=True)
class ScheduleTicked(Event):
    """A tick of a schedule became a job. ``tick`` is the planned time, in UTC."""

    schedule: str
    tick: datetime
    job_id: JobId


@dataclass(frozen=True, slots=True)
class ScheduleSkipped(Event):
    """A tick of a schedule became no job: it was missed, or the job of an earlier one is not finished."""

    schedule: str
    tick: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class JobOverdue(JobEvent):
    """A handler was told to stop and did not; its slot stays taken until it returns."""

    reason: str


@dataclass(frozen=True, slots=True)
class HookFailed(JobEvent):
    """``failed()`` of a job raised, or did not end in time. The job has failed all the same."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ResourceFailed(JobEvent):
    """A resource of the job was not closed after its end. How the job ended stays."""

    failure: Failure


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


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """A handler has kept the event loop from running for ``seconds``; ``stack`` is where it is."""

    seconds: float
    running: tuple[str, ...]
    stack: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """``connections`` describes each store: a URL without its password, and the server's version where it is known.
    ``wakeups`` says for each of them what tells of new jobs, or why it is nothing."""

    worker: str
    pid: int
    connections: tuple[str, ...]
    queues: tuple[str, ...]
    concurrency: int
    lease: float
    wakeups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    """It claims nothing from now on. ``error`` says what went wrong where the reason is an error."""

    worker: str
    reason: str
    running: int
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """``processed`` counts attempts that ended, ``failed`` those of them that were a job's last; ``handed_back``,
    attempts that
    were given back unfinished."""

    worker: str
    processed: int
    failed: int
    handed_back: int


@dataclass(frozen=True, slots=True)
class WorkerPaused(Event):
    """USR2: the worker claims nothing until CONT. ``running`` jobs go on."""

    worker: str
    running: int


@dataclass(frozen=True, slots=True)
class WorkerResumed(Event):
    """CONT: the worker claims jobs again."""

    worker: str


@dataclass(frozen=True, slots=True)
class SignalIgnored(Event):
    """A signal arrived that would end another process. Here it changes nothing; ``reason`` says more."""

    signal: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessAltered(Event):
    """Code of a job changed something that all jobs of the process share.

    ``what`` names the change, ``action`` what the worker did about it, ``suspects`` the jobs that may have done it.
    """

    what: str
    action: str
    suspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogLinesDropped(Event):
    """``count`` log lines were not written, because their reader was too slow or the writing failed."""

    count: int


@dataclass(frozen=True, slots=True)
class WorkerKilled(Event):
    """The process ends at once, because it cannot stop in order. Its jobs are claimed again when their leases end.

    ``running`` names those jobs.
    """

    worker: str
    exit_code: int
    reason: str
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    """A supervisor started worker process number ``index``."""

    index: int
    pid: int


@dataclass(frozen=True, slots=True)
class ProcessEnded(Event):
    """A worker process ended. ``exit_code`` is negative for a signal; ``restart_in`` is None where it is not
    replaced."""

    index: int
    pid: int
    exit_code: int
    restart_in: float | None


@dataclass(frozen=True, slots=True)
class SourcesChanged(Event):
    """``--reload`` saw files change; the worker processes start anew."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HealthPortOpened(Event):
    """``--health-port`` answers these paths at ``url``."""

    url: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConnectionDown(Event):
    """A store stopped answering. Emitted once, however long it lasts."""

    connection: str
    error: str


@dataclass(frozen=True, slots=True)
class ConnectionUp(Event):
    """It answers again, after ``seconds``."""

    connection: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WakeupsUnheard(Event):
    """What tells of new jobs, ``source``, is not heard any more. Until it is, they are found by polling."""

    connection: str
    source: str
    error: str


@dataclass(frozen=True, slots=True)
class WakeupsHeard(Event):
    """It is heard again."""

    connection: str
    source: str


Listener = Callable[[Event], None]
BatchListener = Callable[[Sequence[Event]], None]


class Events:
    """Hands every event to every listener, in the order in which they were added. A listener that raises is reported
    and otherwise ignored: telemetry cannot fail a job.

    Most events come from the thread of the event loop, some from the one that renews leases.
    """

    def __init__(self) -> None:
        self._listeners: list[_Listening] = []
        self._by_kind: dict[type[Event], tuple[BatchListener, ...]] = {}

    def listen(self, listener: Listener, *kinds: type[Event]) -> None:
        """Call ``listener`` for events of these kinds; without any, for all."""

        def each(events: Sequence[Event]) -> None:
            for event in events:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - telemetry cannot fail a job
                    _log.exception("a listener failed on %s", type(event).__name__)

        self.listen_to_batches(each, *kinds)

    def listen_to_batches(
        self, listener: BatchListener, *kinds: type[Event], without: tuple[type[Event], ...] = ()
    ) -> None:
        """Call ``listener`` with events of one kind that happened together: for one to which they cost less together
        than one by one. ``without`` are kinds that it does not want."""
        self._listeners.append(_Listening(listener, kinds or (Event,), without))
        self._by_kind = {}

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody listens for ``kind``; for events that come once per job, and cost more than this question."""
        return bool(self._who(kind))

    def emit(self, event: Event) -> None:
        self.emit_all((event,))

    def emit_all(self, events: Sequence[Event]) -> None:
        """Events of one kind."""
        for listener in self._who(type(events[0])) if events else ():
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - telemetry cannot fail a job
                _log.exception("a listener failed on %s", type(events[0]).__name__)

    def emit_each(self, events: Sequence[Event]) -> None:
        """Events of several kinds."""
        for _, some in groupby(events, key=type):
            self.emit_all(tuple(some))

    def _who(self, kind: type[Event]) -> tuple[BatchListener, ...]:
        known = self._by_kind.get(kind)
        if known is None:
            known = tuple(listening.listener for listening in self._listeners if listening.hears(kind))
            self._by_kind[kind] = known
        return known


class _Listening(NamedTuple):
    listener: BatchListener
    kinds: tuple[type[Event], ...]
    without: tuple[type[Event], ...]

    def hears(self, kind: type[Event]) -> bool:
        return issubclass(kind, self.kinds) and not issubclass(kind, self.without)
