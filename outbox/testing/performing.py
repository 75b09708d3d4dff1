"""One job by itself, as a worker runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self, Unpack

from outbox.dispatch import serialize_all
from outbox.drivers.values import Claim
from outbox.errors import ConfigurationError
from outbox.events import Events
from outbox.handler_parameters import takes_session
from outbox.ids import new_token
from outbox.job import Job
from outbox.job_context import ProgressReports
from outbox.middleware.deadlines import JobTimes, no_times
from outbox.middleware.job_sessions import JobSessions
from outbox.middleware.thread_call import Threads
from outbox.options import DispatchOptions
from outbox.resources import Resources
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.executor import Executor
from outbox.runtime.execution.protected_task import enter_job, protected_task
from outbox.settings import WorkerOptions
from outbox.settlement import Fence, Outcome


class PutBack:
    """Whether an attempt put its job back in one way. True if it did; called with seconds, whether for so long."""

    def __init__(self, happened: bool, delay: float) -> None:
        self._happened = happened
        self.delay = delay if happened else None
        """Seconds until the job is due again; None where it was not put back in this way."""

    def __bool__(self) -> bool:
        return self._happened

    def __call__(self, delay: float | None = None) -> bool:
        """With ``delay``, whether it is that of the job, give or take a millisecond."""
        return self._happened and (delay is None or math.isclose(delay, self.delay or 0.0, abs_tol=0.001))

    def __repr__(self) -> str:
        return f"<for {self.delay:g} s>" if self.delay is not None else "<no>"


class Performed:
    """How one attempt ended."""

    def __init__(self, attempt: Attempt) -> None:
        settlement = attempt.settlement
        outcome = settlement.outcome if settlement is not None else None
        if attempt.committed is not None:
            outcome = Outcome.COMPLETED
        delay = settlement.delay if settlement is not None else 0.0
        self.name = attempt.claim.name
        self.job = attempt.job
        """What the handler was called on: made of what was dispatched. None where no job could be made of it."""
        self.attempt = attempt.claim.attempt
        self.error = attempt.error
        """What the handler raised, or what the attempt failed with."""
        self.outcome = outcome
        self.completed = outcome is Outcome.COMPLETED
        self.failed = outcome is Outcome.FAILED
        """Whether the job has failed for good: it called ``fail``, or this was its last attempt."""
        self.deleted = outcome is Outcome.CANCELLED
        self.released = PutBack(outcome is Outcome.RELEASED, delay)
        self.snoozed = PutBack(outcome is Outcome.SNOOZED, delay)
        self.retried = PutBack(outcome is Outcome.RETRIED, delay)
        """Whether it raised, and has attempts left."""

    def __repr__(self) -> str:
        error = f", {self.error!r}" if self.error is not None else ""
        return f"<{self.name}, attempt {self.attempt}: {self.outcome or 'stopped'}{error}>"


async def perform(
    job: Job,
    *,
    attempt: int = 1,
    resources: Mapping[Any, Any] | Resources | None = None,
    **options: Unpack[DispatchOptions],
) -> Performed:
    """Run ``job`` as a worker does, without a store: it is validated and serialised, loaded, given a context, and
    called with its timeout. What its context was told is in what this returns. ``failed()`` is not called.

    ``attempt`` is the number of the attempt; ``options`` are those of a dispatch. ``resources`` are what ``handle``
    takes, by their types, or `outbox.Resources`.

    Raises:
        DispatchError: it could not be dispatched.
        ConfigurationError: its ``handle`` takes a session, or a resource that is not given.
    """
    provided = as_resources(resources)
    provided.check([type(job)], ", or give it to perform() as `resources`")
    serialized = serialize_all((job,), {**options, "dispatch_if": True})
    if takes_session(type(job)):
        raise ConfigurationError(
            f"{job.name}: `handle` takes a session, which commits the end of the job, and perform() has no store: "
            "dispatch the job in a session of the test, and drain(session=…)"
        )
    [(connection, [envelope])] = serialized.by_connection.items()
    claim = Claim(
        Fence(envelope.id, new_token()),
        envelope.queue,
        envelope.name,
        envelope.priority,
        envelope.payload,
        envelope.headers,
        attempt,
        rescued=False,
        deadline=math.inf,
    )
    async with Runner(resources=provided) as runner:
        ended = await runner.run(claim, connection)
        await close_resources(ended)
        return Performed(ended)


def as_resources(resources: Mapping[Any, Any] | Resources | None) -> Resources:
    return resources if isinstance(resources, Resources) else Resources(resources)


async def close_resources(attempt: Attempt) -> None:
    """
    Raises:
        BaseExceptionGroup: what the resources of the attempt have raised.
    """
    if attempt.resources is not None:
        await attempt.resources.close()


class Runner:
    """The executor of a worker, by itself."""

    def __init__(
        self,
        sessions: JobSessions | None = None,
        resources: Resources | None = None,
        times: JobTimes = no_times,
    ) -> None:
        self.options = WorkerOptions.load()
        self.threads = Threads()
        self.events = Events()
        self._sessions = sessions or JobSessions({}, 1)
        self.resources = resources or Resources()
        self._executor = Executor(
            self.options,
            self.threads,
            self.events,
            sessions=self._sessions,
            resources=self.resources,
            times=times,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sessions.stop()
        await self.threads.stop()

    async def run(self, claim: Claim, connection: str, reports: ProgressReports | None = None) -> Attempt:
        attempt = Attempt(claim, connection, lambda _: None, reports)
        attempt.task = protected_task(self._run(attempt), name=claim.name)
        try:
            await attempt.task
        except BaseException:
            attempt.task.interrupt()
            raise
        return attempt

    async def _run(self, attempt: Attempt) -> None:
        enter_job(attempt.task)
        attempt.end(await self._executor.run(attempt))
