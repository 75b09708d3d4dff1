"""The life of a worker process."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event
from outbox.settlement import Failure


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
class HealthPortOpened(Event):
    """``--health-port`` answers these paths at ``url``."""

    url: str
    paths: tuple[str, ...]


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
class WorkerStopping(Event):
    """It claims nothing from now on. ``error`` says what went wrong where the reason is an error."""

    worker: str
    reason: str
    running: int
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """``processed`` counts attempts that ended, and ``failed`` those of them that were a job's last. ``handed_back``
    counts attempts that were given back unfinished."""

    worker: str
    processed: int
    failed: int
    handed_back: int


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
class LoopBlocked(Event):
    """A handler has kept the event loop from running for ``seconds``; ``stack`` is where it is."""

    seconds: float
    running: tuple[str, ...]
    stack: str


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
class SignalIgnored(Event):
    """A signal arrived that would end another process. Here it changes nothing; ``reason`` says more."""

    signal: str
    reason: str
