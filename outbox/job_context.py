"""`JobContext`: what a running job knows of itself, and its decisions how the attempt ends."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from outbox.backoff import MAX_DELAY
from outbox.errors import InvalidOption, JobFailed
from outbox.ids import JobId
from outbox.policies.results import Progress, check_progress
from outbox.policies.schedule import Tick

if TYPE_CHECKING:
    from outbox.policies.batch import BatchContext
    from outbox.policies.chain import ChainContext


class Completion(Protocol):
    """Completes a job that a worker runs in a transaction of its handler."""

    def complete(self, session: Any) -> Awaitable[None]: ...


class ProgressReports(Protocol):
    """What writes how far jobs are."""

    def report(self, job_id: JobId, progress: Progress) -> None: ...


class JobContext:
    """What a running job knows of itself; its methods decide how the attempt ends once ``handle`` returns.

    The last decision counts. They can be called from a plain ``def handle`` in its thread as well.
    """

    __slots__ = (
        "_batch", "_chain", "_reports", "_tick", "attempt", "cancelled", "completion", "connection", "decision",
        "job_id", "max_tries", "previous", "queue", "reported",
    )  # fmt: skip

    def __init__(
        self,
        *,
        job_id: JobId,
        attempt: int,
        max_tries: int,
        queue: str,
        connection: str,
        completion: Completion | None = None,
        chain: ChainContext | None = None,
        tick: Tick | None = None,
        batch: BatchContext | None = None,
        reports: ProgressReports | None = None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        """The number of this attempt: 1 is the first."""
        self.max_tries = max_tries
        self.queue = queue
        self.connection = connection
        self.decision: Decision | None = None
        self.cancelled = False
        """Whether the job was cancelled while it runs. A plain ``def handle`` that asks can return in order: it is
        interrupted a second later. In a coroutine, `asyncio.CancelledError` is raised at once."""
        self.completion = completion
        """What a worker writes to end the job in a transaction of its handler. None outside a worker."""
        self._chain = chain
        self._tick = tick
        self._batch = batch
        self._reports = reports
        self.reported: Progress | None = None
        """What `progress` was last told."""
        self.previous: Any = None if chain is None else chain.previous
        """What ``handle`` of the job before returned, in a chain. For the ``catch`` of a chain, which job failed:
        ``{"job_id": …, "name": …, "error": …}``. Else None."""

    @property
    def batch(self) -> BatchContext:
        """The batch that the job is a member of.

        Raises:
            RuntimeError: it is a member of none.
        """
        if self._batch is None:
            raise RuntimeError("this job is in no batch: it was not dispatched by dispatch_batch")
        return self._batch

    @property
    def chain(self) -> ChainContext:
        """The chain that the job is in.

        Raises:
            RuntimeError: it is in none.
        """
        if self._chain is None:
            raise RuntimeError("this job is in no chain: it was not dispatched by dispatch_chain")
        return self._chain

    @property
    def tick(self) -> datetime | None:
        """When the schedule of this job ticked, in UTC: the planned time, however late it runs. None for other jobs."""
        return None if self._tick is None else self._tick.at

    @property
    def previous_tick(self) -> datetime | None:
        """The tick of the schedule before this one that became a job; None for the first, and for other jobs."""
        return None if self._tick is None else self._tick.previous

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far the job is: ``fraction`` from 0 to 1, and up to 255 characters for people. Call it as often as
        you like: a worker writes it at most once a second, while it holds the job, and this does not wait.

        Raises:
            InvalidOption: ``fraction`` is no number from 0 to 1, or ``text`` is none.
        """
        self.reported = check_progress(fraction, text)
        if self._reports is not None:
            self._reports.report(self.job_id, self.reported)

    def release(self, delay: float | timedelta = 0) -> None:
        """Put the job back, to be claimed again after ``delay`` seconds, or a ``timedelta``. The attempt counts."""
        self.decision = Released(_check_delay(delay))

    def snooze(self, delay: float | timedelta) -> None:
        """Put the job back for ``delay`` seconds, or a ``timedelta``, without counting this attempt."""
        self.decision = Snoozed(_check_delay(delay))

    def rate_limited(self, retry_after: float | timedelta) -> None:
        """A service has refused because of its rate limit (429). The job's rate limits admit no job, in the whole
        fleet, for ``retry_after`` seconds, or a ``timedelta``. The job is put back for as long, and the attempt does
        not count. A job without a ``rate`` is only put back."""
        self.decision = RateLimited(_check_delay(retry_after))

    def fail(self, error: BaseException | type[BaseException] | str) -> None:
        """End the job as failed, whatever attempts are left. ``error`` is an exception, its class, or a text, of which
        a `JobFailed` is made."""
        self.decision = Failed(_as_error(error))

    def complete(self, session: Any) -> Awaitable[None]:
        """Complete the job in the transaction of ``session``: what the session writes and the job's end are one commit.

        The session is flushed, and the job's row is deleted. Do this last, right before the commit: the row stays
        locked until then, and the lease cannot be renewed. ``await`` it with an ``AsyncSession``; with a ``Session`` it
        is done on return. After a rollback the job is not completed. A second call in one transaction changes nothing.

        Raises:
            LeaseLost: another worker may have the job. Let it pass, so that the transaction is rolled back.
            ConfigurationError: the job's connection is not a database.
            SessionUnusable: the session cannot carry it, or writes to another database than the job's.
        """
        if self.completion is None:
            raise RuntimeError("only a worker can complete a job: it is not being run by one")
        return self.completion.complete(session)

    def delete(self) -> None:
        """End the job without success or failure: it is removed, and nothing else happens."""
        self.decision = Deleted()


def _check_delay(delay: object) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise InvalidOption(f"a delay is a number of seconds from 0 to {MAX_DELAY:.0f}, or a timedelta, not {delay!r}")
    return float(seconds)


def _as_error(error: object) -> BaseException:
    """An exception, which is what ``failed()`` takes, whatever the job has failed with."""
    if isinstance(error, BaseException):
        return error
    if isinstance(error, type) and issubclass(error, BaseException):
        try:
            return error()
        except Exception:  # noqa: BLE001 - it needs arguments
            return JobFailed(error.__name__)
    return JobFailed(str(error))


class Released:
    __slots__ = ("delay",)

    def __init__(self, delay: float) -> None:
        self.delay = delay


class Snoozed(Released):
    __slots__ = ()


class RateLimited(Snoozed):
    __slots__ = ()


class Failed:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Deleted:
    __slots__ = ()


Decision = Released | Snoozed | Failed | Deleted
