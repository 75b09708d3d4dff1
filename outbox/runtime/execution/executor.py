"""Runs one job and says how it ended. Writes nothing: settlements are the completer's work."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import suppress

from outbox.errors import (
    AttemptsExhausted,
    InvalidResult,
    JobError,
    JobTimeout,
    LeaseLost,
    MissingResource,
    NewerPayload,
)
from outbox.events import Events, JobGivenBack, JobOverdue
from outbox.job_context import Failed, RateLimited, Released, Snoozed
from outbox.middleware.application import load_middleware
from outbox.middleware.cancellation import CANCEL_STEPS
from outbox.middleware.deadlines import JobTimes, no_times
from outbox.middleware.interruption import Interruption
from outbox.middleware.job_sessions import JobSessions
from outbox.middleware.next_jobs import keep_result
from outbox.middleware.resources import Close
from outbox.middleware.results import RETURNED, HandlerResult
from outbox.middleware.stack import HandlerStack
from outbox.middleware.thread_call import Threads
from outbox.policies.base import Policies
from outbox.resources import Resources
from outbox.runtime.execution import limited_attempts
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.given_back import GivenBackJobs
from outbox.runtime.execution.isolation import hand_back
from outbox.runtime.execution.retry_policy import RetryPolicy
from outbox.settings import WorkerOptions
from outbox.settlement import MoveRates, Settlement

OVERDUE_DELAY = 5.0
"""Seconds for which a job stays unclaimable that is handed back while its handler still runs. By then this process has
ended: the next attempt does not run beside it."""


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
        self,
        options: WorkerOptions,
        threads: Threads,
        events: Events,
        *,
        sessions: JobSessions | None = None,
        cancel_steps: Sequence[float] = CANCEL_STEPS,
        times: JobTimes = no_times,
        given_back: GivenBackJobs | None = None,
        resources: Resources | None = None,
        close_resources: Close = lambda *_: None,
    ) -> None:
        """``sessions`` and ``resources`` are for jobs whose ``handle`` takes them; ``times`` tells those with deadlines
        their age."""
        self._given_back = given_back or GivenBackJobs()
        self._default = RetryPolicy.default(options)
        self._events = events
        self._sessions = sessions or JobSessions({}, 1)
        self._stack = HandlerStack(
            self._default,
            threads,
            events,
            self._sessions,
            middleware=load_middleware(options.middleware),
            provided=resources or Resources(),
            close=close_resources,
            cancel_steps=cancel_steps,
            give_up=self._give_up,
            times=times,
        )

    async def run(self, attempt: Attempt) -> Settlement | None:
        """Make the attempt, in the current task. None means that nothing may be written.

        An attempt that is given up because its handler does not stop ends before this returns, through ``attempt.end``.
        """
        result, raised = RETURNED, None
        try:
            result = await self._stack.of(attempt.claim.name)(attempt)
        except BaseException as error:  # noqa: BLE001 - a job cannot end the worker, not even with SystemExit
            raised = error
            await self._resolve(attempt)
        return self._outcome(attempt, result, raised)

    async def _resolve(self, attempt: Attempt) -> None:
        """If the COMMIT of a transaction that completes the job got no answer, its row says what became of it. If the
        row cannot be read, the attempt has failed: a settlement is refused where the job has ended."""
        completion = attempt.completion
        if completion is not None and completion.written and completion.settled is None:
            with suppress(Exception):
                if await self._sessions.is_gone(attempt.connection, attempt.fence):
                    completion.committed()

    def _outcome(self, attempt: Attempt, result: HandlerResult, raised: BaseException | None) -> Settlement | None:
        completion = attempt.completion
        if completion is not None and completion.settled is not None:
            attempt.committed = completion.settled
            return None
        policy = attempt.policy or self._default
        if isinstance(raised, LeaseLost) and attempt.interruption is None:
            attempt.interrupt(Interruption.LEASE_LOST)
        if attempt.interruption is not None and (raised is not None or result.settled or result.decision is None):
            return self._interrupted(attempt, policy, raised)
        if raised is not None:
            return self._raised(attempt, policy, raised)
        decision = result.decision
        if decision is None:
            return _completed(attempt, result.value)
        if isinstance(decision, Failed):
            return limited_attempts.failed(attempt, decision.error)
        if isinstance(decision, RateLimited):
            return _rate_limited(attempt, decision.delay)
        if isinstance(decision, Snoozed):
            return limited_attempts.snoozed(attempt, Settlement.snoozed(attempt.fence, decision.delay))
        if isinstance(decision, Released):
            return _released(attempt, policy, decision.delay)
        return Settlement.cancelled(attempt.fence)

    def _raised(self, attempt: Attempt, policy: RetryPolicy, error: BaseException) -> Settlement:
        if attempt.started is None and isinstance(error, NewerPayload | MissingResource):
            return self._for_another(attempt, error) or limited_attempts.failed(attempt, error)
        if attempt.started is None or isinstance(error, InvalidResult):
            # An invalid result would be the same again.
            return limited_attempts.failed(attempt, error)
        decision = attempt.job.context.decision if attempt.job is not None else None
        if isinstance(decision, Failed):
            return limited_attempts.failed(attempt, decision.error)
        if isinstance(error, CancelledError) and attempt.task and attempt.task.cancelled_by_other:
            # Another job cancelled every task that it found, and what this one waited for was among them.
            return Settlement.snoozed(attempt.fence)
        return _retried(attempt, policy, error)

    def _for_another(self, attempt: Attempt, error: JobError) -> Settlement | None:
        """The attempt is given back, so that another worker can make it; None if that has lasted too long."""
        job_id = attempt.fence.job_id
        if self._given_back.is_new(job_id):
            self._events.emit(attempt.event(JobGivenBack, str(error)))
        delay = self._given_back.delay(job_id)
        return None if delay is None else hand_back(attempt.claim, delay)

    def _interrupted(self, attempt: Attempt, policy: RetryPolicy, raised: BaseException | None) -> Settlement | None:
        match attempt.interruption:
            case Interruption.TIMEOUT:
                error = JobTimeout(
                    f"{attempt.claim.name}: attempt {attempt.claim.attempt} took longer than its timeout of "
                    f"{policy.timeout:g} s"
                )
                # Where the handler was, for the traceback that is stored.
                error.__cause__ = raised
                if attempt.limits is not None and attempt.limits.fail_on_timeout:
                    return limited_attempts.failed(attempt, error)
                return _retried(attempt, policy, error)
            case Interruption.SHUTDOWN | Interruption.UNREACHABLE | Interruption.NOT_BEGUN:
                return hand_back(attempt.claim, OVERDUE_DELAY if attempt.overdue else 0.0)
            case _:
                return None

    def _give_up(self, attempt: Attempt) -> None:
        reason = attempt.interruption.value if attempt.interruption else "it was told to stop"
        attempt.overdue = True
        self._events.emit(attempt.event(JobOverdue, reason))
        attempt.end(self._interrupted(attempt, attempt.policy or self._default, None))


def _completed(attempt: Attempt, value: object) -> Settlement:
    """The value is kept where a next job is to have it."""
    if attempt.keep_for or attempt.chain is not None:
        try:
            keep_result(attempt, value)
        except InvalidResult as error:
            return limited_attempts.failed(attempt, error)
    return Settlement.completed(attempt.fence)


def _rate_limited(attempt: Attempt, delay: float) -> Settlement:
    put_back = Settlement.snoozed(attempt.fence, delay)
    if not (attempt.claim.policies or 0) & Policies.RATE:
        return put_back
    return put_back._replace(effects=(MoveRates(attempt.claim.headers, delay),))


def _retried(attempt: Attempt, policy: RetryPolicy, error: BaseException) -> Settlement:
    claim = attempt.claim
    if claim.attempt >= policy.max_tries or attempt.job is None:
        return limited_attempts.failed(attempt, error)
    attempt.error = error
    again = Settlement.retried(attempt.fence, policy.delay(attempt.job, claim.attempt), attempt.failure(error))
    return limited_attempts.retried(attempt, again, error)


def _released(attempt: Attempt, policy: RetryPolicy, delay: float) -> Settlement:
    claim = attempt.claim
    if claim.attempt < policy.max_tries:
        return Settlement.released(attempt.fence, delay)
    return limited_attempts.failed(
        attempt,
        AttemptsExhausted(
            f"{claim.name}: released itself on its last attempt ({claim.attempt} of {policy.max_tries}): raise "
            "max_tries, or use context.snooze(), which counts no attempt"
        ),
    )
