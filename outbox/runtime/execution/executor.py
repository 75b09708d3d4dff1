"""Runs one job and says how it ended. Writes nothing: settlements are the completer's work."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from functools import partial

from outbox import clock, registry
from outbox.drivers.base import Claim
from outbox.envelope import Headers, deserialize
from outbox.errors import AttemptsExhausted, InvalidPayload, JobError, JobTimeout
from outbox.events import Events, JobOverdue, JobStarted
from outbox.job import Deleted, Failed, Job, JobContext, Released, Snoozed
from outbox.runtime.execution.attempt import Attempt, Interruption
from outbox.runtime.execution.handler_call import CANCEL_STEPS, HandlerCall
from outbox.runtime.execution.isolation import is_suspect
from outbox.runtime.execution.retry_policy import RetryPolicy
from outbox.runtime.execution.threads import Threads
from outbox.runtime.execution.timeouts import Timeouts
from outbox.settings import WorkerOptions
from outbox.settlement import Failure, Settlement

OVERDUE_DELAY = 5.0
"""Seconds for which a job stays unclaimable that is handed back while its handler still runs, so that this process has
ended before the next one begins."""


class Executor:
    """What a handler raises is the attempt's failure, `BaseException` included: only the worker itself decides to stop.

    How an attempt ends, the first that applies:

    1. It was told to stop: the `Interruption` decides, whatever the handler made of it, unless it returned in peace
       with a decision of its own (``self.context.release()``, …).
    2. It called ``self.context.fail()``: failed, with that error.
    3. It raised: retried, or failed when it was the last attempt.
    4. It returned: as it decided, else completed.
    """

    def __init__(
        self, options: WorkerOptions, threads: Threads, events: Events, patience: Sequence[float] = CANCEL_STEPS
    ) -> None:
        self._default = RetryPolicy.default(options)
        self._threads = threads
        self._events = events
        self._patience = patience
        self._timeouts = Timeouts()

    async def run(self, attempt: Attempt) -> Settlement | None:
        """Make the attempt, in the current task. None means that nothing may be written.

        An attempt that is given up because its handler does not stop ends before this returns, through ``attempt.end``.
        """
        if attempt.deadline <= clock.now():
            # Claimed long ago: a handler kept the loop busy, or the process was frozen.
            attempt.interrupt(Interruption.LEASE_LOST)
        if attempt.interruption is not None:
            return self._interrupted(attempt, self._default, None)
        try:
            policy = self._prepare(attempt)
        except JobError as error:
            return _failed(attempt, error)
        assert attempt.job is not None  # noqa: S101 - for the type checker: prepared
        call = HandlerCall(self._threads, partial(self._give_up, attempt, policy), self._patience, attempt.task)
        attempt.begin(call, policy.timeout)
        if self._events.wants(JobStarted):
            self._events.emit(attempt.event(JobStarted, attempt.claim.rescued))
        if policy.timeout > 0:
            self._timeouts.watch(attempt)
        raised: BaseException | None = None
        try:
            await call.run(attempt.job.handle)  # type: ignore[attr-defined]
        except BaseException as error:  # noqa: BLE001 - a job cannot end the worker, not even with SystemExit
            raised = error
        finally:
            self._timeouts.forget(attempt)
        return self._outcome(attempt, policy, raised)

    def _prepare(self, attempt: Attempt) -> RetryPolicy:
        """The row made into a job.

        Attempts are counted before the payload is touched: a payload whose validation kills the process must come to
        its end, too.

        Raises:
            JobError: it cannot be run.
        """
        claim = attempt.claim
        kind = registry.resolve(claim.name)
        policy = self._default.of(kind, Headers.load(claim.headers))
        if claim.attempt > policy.max_tries:
            raise _exhausted(claim, policy)
        attempt.job = load(attempt, policy)
        return policy

    def _outcome(self, attempt: Attempt, policy: RetryPolicy, raised: BaseException | None) -> Settlement | None:
        assert attempt.job is not None  # noqa: S101 - for the type checker: it has run
        decision = attempt.job.context.decision
        if attempt.interruption is not None and attempt.interruption.final:
            return None
        if attempt.interruption is not None and (raised is not None or decision is None):
            return self._interrupted(attempt, policy, raised)
        if isinstance(decision, Failed):
            return _failed(attempt, decision.error)
        if isinstance(raised, CancelledError) and attempt.task and attempt.task.cancelled_by_other:
            # Another job cancelled every task that it found, and what this one waited for was among them.
            return Settlement.snoozed(attempt.fence)
        if raised is not None:
            return _retried(attempt, policy, raised)
        if isinstance(decision, Snoozed):
            return Settlement.snoozed(attempt.fence, decision.delay)
        if isinstance(decision, Released):
            return _released(attempt, policy, decision.delay)
        if isinstance(decision, Deleted):
            return Settlement.cancelled(attempt.fence)
        return Settlement.completed(attempt.fence)

    def _interrupted(self, attempt: Attempt, policy: RetryPolicy, raised: BaseException | None) -> Settlement | None:
        match attempt.interruption:
            case Interruption.TIMEOUT:
                error = JobTimeout(
                    f"{attempt.claim.name}: attempt {attempt.claim.attempt} took longer than its timeout of "
                    f"{policy.timeout:g} s"
                )
                # Where the handler was, for the traceback that is stored.
                error.__cause__ = raised
                return _retried(attempt, policy, error)
            case Interruption.SHUTDOWN | Interruption.UNREACHABLE:
                put_back = Settlement.deferred if is_suspect(attempt.claim) else Settlement.snoozed
                return put_back(attempt.fence, OVERDUE_DELAY if attempt.overdue else 0.0)
            case _:
                return None

    def _give_up(self, attempt: Attempt, policy: RetryPolicy) -> None:
        reason = attempt.interruption.value if attempt.interruption else "it was told to stop"
        attempt.overdue = True
        self._events.emit(attempt.event(JobOverdue, reason))
        attempt.end(self._interrupted(attempt, policy, None))


def load(attempt: Attempt, policy: RetryPolicy) -> Job:
    """The job of a row, with its context, whatever the validators of its class do.

    Raises:
        UnknownJob: its name is not registered.
        InvalidPayload: no job can be made of it.
    """
    claim = attempt.claim
    try:
        job = deserialize(claim.name, claim.payload)
    except JobError:
        raise
    except BaseException as error:
        raise InvalidPayload(
            f"{claim.name}: loading the payload raised {type(error).__name__}, which is not a validation error: "
            f"{Failure.of(error).message}"
        ) from error
    job.run_in(
        JobContext(
            job_id=claim.fence.job_id,
            attempt=claim.attempt,
            max_tries=policy.max_tries,
            queue=claim.queue,
            connection=attempt.connection,
        )
    )
    return job


def _exhausted(claim: Claim, policy: RetryPolicy) -> AttemptsExhausted:
    """How many attempts there were is known, and how the last one ended; of the others, not which were ordinary
    retries."""
    times = claim.attempt - 1
    last = ": the last time, the worker that ran it died, froze or lost its connection before the job ended"
    return AttemptsExhausted(
        f"{claim.name}: retried, released or lease ended {times} time{'s' if times != 1 else ''} in all, "
        f"with max_tries {policy.max_tries}{last if claim.rescued else ''}"
    )


def _failed(attempt: Attempt, error: BaseException) -> Settlement:
    attempt.error = error
    return Settlement.failed(attempt.fence, Failure.of(error))


def _retried(attempt: Attempt, policy: RetryPolicy, error: BaseException) -> Settlement:
    claim = attempt.claim
    if claim.attempt >= policy.max_tries or attempt.job is None:
        return _failed(attempt, error)
    return Settlement.retried(attempt.fence, policy.delay(attempt.job, claim.attempt), Failure.of(error))


def _released(attempt: Attempt, policy: RetryPolicy, delay: float) -> Settlement:
    claim = attempt.claim
    if claim.attempt < policy.max_tries:
        return Settlement.released(attempt.fence, delay)
    return _failed(
        attempt,
        AttemptsExhausted(
            f"{claim.name}: released itself on its last attempt ({claim.attempt} of {policy.max_tries}): raise "
            "max_tries, or use context.snooze(), which counts no attempt"
        ),
    )
