"""One claim on its way through this process: held, run, ended, settled."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from outbox import clock
from outbox.drivers.base import Claim
from outbox.events import JobEvent
from outbox.job import Job
from outbox.runtime.execution.handler_call import HandlerCall
from outbox.runtime.execution.protected_task import ProtectedTask
from outbox.settlement import Fence, Settlement

_E = TypeVar("_E", bound=JobEvent)


class Interruption(Enum):
    """Why a handler is told to stop, which decides how its attempt ends."""

    TIMEOUT = "its timeout has passed"
    """The attempt has failed; it counts."""
    LEASE_LOST = "its lease is lost"
    """Somebody else may own the job. Nothing is written."""
    CANCELLED = "an operator removed the job"
    """Its row disappeared while the lease was alive, so that no other worker has it. Nothing is written."""
    UNREACHABLE = "its lease cannot be renewed, because the store does not answer"
    """The job is handed back as soon as the store answers. If it has another owner by then, the fence sees to it that
    nothing happens."""
    SHUTDOWN = "the worker stops"
    """The job is handed back at once; the attempt does not count."""

    @property
    def final(self) -> bool:
        """Whether the store has nothing left under this claim's token."""
        return self in _FINAL


_FINAL = (Interruption.LEASE_LOST, Interruption.CANCELLED)


class Attempt:
    """Lives on the event loop of the worker; other threads only read it."""

    __slots__ = (
        "_call", "_on_end", "claim", "connection", "deadline", "ended", "error", "interruption", "job", "overdue",
        "seconds", "settlement", "started", "task", "timeout",
    )  # fmt: skip

    def __init__(self, claim: Claim, connection: str, on_end: Callable[[Attempt], None]) -> None:
        self.claim = claim
        self.connection = connection
        self.deadline = claim.deadline
        """When the lease ends, on `outbox.clock`, as far as this process knows."""
        self.task: ProtectedTask | None = None
        """What it runs in."""
        self.job: Job | None = None
        self.started: float | None = None
        """When the handler was called."""
        self.timeout = 0.0
        self.seconds = 0.0
        """How long the handler took."""
        self.interruption: Interruption | None = None
        self.overdue = False
        """It was given up, and may still be running."""
        self.error: BaseException | None = None
        """What made the attempt fail, for the ``failed()`` hook."""
        self.settlement: Settlement | None = None
        """How it ended; None while it has not, and when nothing may be written."""
        self.ended = False
        self._on_end = on_end
        self._call: HandlerCall | None = None

    @property
    def fence(self) -> Fence:
        return self.claim.fence

    @property
    def blocks_loop(self) -> bool:
        """Whether it may be what keeps the loop from running: it is being loaded, or its handler is a coroutine."""
        return not self.ended and (self._call is None or not self._call.in_thread)

    def begin(self, call: HandlerCall, timeout: float) -> None:
        """``call`` is about to run the handler, and is what an interruption stops."""
        self._call = call
        self.timeout = timeout
        self.started = clock.now()

    def interrupt(self, reason: Interruption) -> None:
        """Tell the handler to stop. The first reason counts, except that a lost lease or a removed job goes before all:
        then nothing may be written. Without effect on an attempt that has ended."""
        if self.ended or (self.interruption is not None and self.interruption.final):
            return
        if self.interruption is None or reason.final:
            self.interruption = reason
        if self._call is not None:
            self._call.stop()

    def end(self, settlement: Settlement | None) -> None:
        """The attempt is over, with this settlement to be written, or None where nothing may be. The first call counts:
        what a handler does after it was given up changes nothing."""
        if self.ended:
            return
        self.ended = True
        self.settlement = settlement
        # It refers back here, and a circle waits for the garbage collector.
        self._call = None
        if self.started is not None:
            self.seconds = clock.now() - self.started
        self._on_end(self)

    def event(self, kind: type[_E], *arguments: Any) -> _E:
        """An event about this attempt."""
        claim = self.claim
        return kind(claim.fence.job_id, claim.name, claim.queue, self.connection, claim.attempt, *arguments)
