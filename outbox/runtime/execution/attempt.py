"""One claim on its way through this process: held, run, ended, settled."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, TypeVar

from outbox import clock
from outbox.drivers.values import Claim, Settled
from outbox.encrypted_jobs import JobCipher
from outbox.events import JobEvent
from outbox.job import Job
from outbox.job_context import ProgressReports
from outbox.middleware.batch_additions import BatchAdditions
from outbox.middleware.cancellation import HandlerCall
from outbox.middleware.chain_steps import ChainSteps
from outbox.middleware.completion import Completion
from outbox.middleware.interruption import Interruption
from outbox.middleware.kept_results import with_kept_result
from outbox.middleware.next_jobs import with_next_jobs
from outbox.middleware.resources import JobResources
from outbox.policies.attempt_limits import AttemptCounts, AttemptLimits
from outbox.runtime.execution.protected_task import ProtectedTask
from outbox.runtime.execution.retry_policy import RetryPolicy
from outbox.settlement import Failure, Fence, Settlement

_NO_ARGUMENTS: dict[str, Any] = {}
_E = TypeVar("_E", bound=JobEvent)


class Attempt:
    """Lives on the event loop of the worker; other threads only read it."""

    __slots__ = (
        "_on_end", "arguments", "batch", "call", "chain", "cipher", "claim", "committed", "completion",
        "connection", "counts", "deadline", "ended", "error", "interruption", "job", "keep_for",
        "kept_result", "limits", "overdue", "policy", "reports", "resources", "result", "retry_deadline",
        "seconds", "seconds_waited", "settlement", "started", "task", "timeout", "timer",
    )  # fmt: skip

    def __init__(
        self,
        claim: Claim,
        connection: str,
        on_end: Callable[[Attempt], None],
        reports: ProgressReports | None = None,
    ) -> None:
        self.claim = claim
        self.connection = connection
        self.deadline = claim.deadline
        """When the lease ends, on `outbox.clock`, as far as this process knows."""
        self.task: ProtectedTask | None = None
        """What it runs in."""
        self.job: Job | None = None
        self.started: float | None = None
        """When the handler was called."""
        self.seconds_waited: float | None = None
        """Seconds from when the job could be claimed until then. None where its store does not tell."""
        self.timeout = 0.0
        self.seconds = 0.0
        """How long the handler took."""
        self.interruption: Interruption | None = None
        self.overdue = False
        """It was given up, and may still be running."""
        self.limits: AttemptLimits | None = None
        """Of a job that has some."""
        self.counts: AttemptCounts | None = None
        """What it has counted before this attempt."""
        self.retry_deadline: float | None = None
        """When its retries must have begun, on `outbox.clock`."""
        self.chain: ChainSteps | None = None
        """Of a job that is in one."""
        self.batch: BatchAdditions | None = None
        """Of a member of one."""
        self.cipher: JobCipher | None = None
        """Of a job whose payload was decrypted."""
        self.arguments: dict[str, Any] = _NO_ARGUMENTS
        """What ``handle`` is called with, beside a session."""
        self.resources: JobResources | None = None
        """Those of this attempt alone."""
        self.error: BaseException | None = None
        """What made the attempt fail: for the ``failed()`` hook after the last one, and for tests."""
        self.result: str | None = None
        """What the handler returned, as JSON, where a next job is to have it."""
        self.kept_result: str | None = None
        """What the handler returned, as JSON, where the job is kept."""
        self.keep_for = 0.0
        """Seconds for which the job is kept after its end."""
        self.reports = reports
        """What writes how far the job is. None where its store keeps nothing of the kind."""
        self.settlement: Settlement | None = None
        """How it ended; None while it has not, and when nothing may be written."""
        self.completion: Completion | None = None
        """What ends the job in a transaction of its own, if it asks for that. None until the job was made."""
        self.committed: Settled | None = None
        """What the job's own transaction has committed, its end among it: then there is no settlement to write."""
        self.ended = False
        self._on_end = on_end
        self.call: HandlerCall | None = None
        """What an interruption stops, while the handler runs."""
        self.policy: RetryPolicy | None = None
        """None until the job class is known."""
        self.timer: TimerHandle | None = None
        """Interrupts the attempt when its time is up."""

    @property
    def fence(self) -> Fence:
        return self.claim.fence

    @property
    def blocks_loop(self) -> bool:
        """Whether it may be what keeps the loop from running: it is being loaded, or its handler is a coroutine."""
        return not self.ended and (self.call is None or not self.call.in_thread)

    def begin(self, call: HandlerCall) -> None:
        """``call`` is about to run the handler, and is what an interruption stops."""
        self.call = call
        if self.policy is not None:
            self.timeout = self.policy.timeout
        self.started = clock.now()
        since = self.claim.ready_since
        if since is not None:
            self.seconds_waited = self.started - since

    def interrupt(self, reason: Interruption) -> None:
        """Tell the handler to stop. The first reason counts, except that a lost lease or a removed job goes before all:
        then nothing may be written. Without effect on an attempt that has ended."""
        if self.ended or (self.interruption is not None and self.interruption.final):
            return
        if self.interruption is None or reason.final:
            self.interruption = reason
        if reason is Interruption.CANCELLED and self.job is not None:
            self.job.context.cancelled = True
        if self.call is not None:
            self.call.stop(gently=reason is Interruption.CANCELLED)

    def end(self, settlement: Settlement | None) -> None:
        """The attempt is over, with this settlement to be written, or None where nothing may be. The first call counts:
        what a handler does after it was given up changes nothing."""
        if self.ended:
            return
        self.ended = True
        if settlement is not None and self.claim.headers != "{}":
            settlement = with_next_jobs(self, settlement)
        if settlement is not None and self.keep_for:
            settlement = with_kept_result(self, settlement)
        if settlement is not None and self.claim.policies is not None:
            settlement = settlement.leaving(self.claim.policies, self.claim.headers)
        self.settlement = settlement
        # It refers back here, and a circle waits for the garbage collector.
        self.call = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.started is not None:
            self.seconds = clock.now() - self.started
        self._on_end(self)

    def failure(self, error: BaseException) -> Failure:
        """``error`` as it is stored and logged."""
        return Failure.of(error) if self.cipher is None else self.cipher.failure(error)

    def event(self, kind: type[_E], *arguments: Any) -> _E:
        """An event about this attempt."""
        claim = self.claim
        return kind(claim.fence.job_id, claim.name, claim.queue, self.connection, claim.attempt, *arguments)
