"""What operators do, for applications: look at jobs, queues and workers, cancel, put back, remove.

Every function takes ``connection``, the name of a connection of the settings; left out, it is that of
``QUEUE_CONNECTION``. Each raises `ConfigurationError` where there is no such connection or its tables are
missing, and `BackendUnavailable` where its store does not answer. With ``by``, the name of a person, a change is
written to the audit log of a database. `outbox.sync` has the same for code that is not async.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from outbox import clock
from outbox.client_state import current_client, current_keys, current_settings
from outbox.dispatch import AnySession, sync_session
from outbox.drivers.audit import acting
from outbox.drivers.base import Driver
from outbox.drivers.database.jobs.cancel import cancel_in_session
from outbox.drivers.filters import FailedFilter, FailedGroup, JobFilter, JobPage, JobPlace
from outbox.drivers.metrics import DepthPoint, MetricPoint, MetricStore
from outbox.drivers.values import (
    FailedJob,
    FinishedJob,
    JobChange,
    JobProgress,
    JobState,
    QueueCounts,
    StoredJob,
    WorkerStatus,
)
from outbox.encrypted_jobs import open_kept_result
from outbox.errors import ConfigurationError, InvalidOption, JobFailed, JobNotFound
from outbox.ids import JobId
from outbox.job_changes import change_job
from outbox.open_drivers import driver_here
from outbox.options import as_delay, check_priority, check_queue
from outbox.wakeups.after_commit import after_commit
from outbox.wakeups.announce import announce_cancelled

MOST_PER_PAGE = 10_000
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25
"""Seconds between two looks for the end of a job."""
METRICS_KEPT = 90 * 86_400.0
"""Seconds."""

AnyId = UUID | str
Duration = float | timedelta


def _driver(connection: str | None) -> Driver:
    return driver_here(connection or current_settings().connection)


def _id(job_id: AnyId) -> JobId:
    if isinstance(job_id, JobId):
        return job_id
    try:
        return JobId(str(job_id) if isinstance(job_id, UUID) else job_id)
    except (ValueError, AttributeError, TypeError):
        raise InvalidOption(f"a job's id is a UUID, not {job_id!r}") from None


def _limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_PER_PAGE:
        raise InvalidOption(f"a limit is a whole number from 1 to {MOST_PER_PAGE:,}, not {limit!r}")
    return limit


def _queue(queue: str | None) -> str | None:
    return None if queue is None else check_queue(queue)


def _seconds(duration: Duration | None) -> float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InvalidOption(f"a time is a number of seconds or a timedelta, not negative, not {duration!r}")
    return float(seconds)


def _matching(name: str | None, error: str | None, since: Duration | None, group: str | None) -> FailedFilter:
    return FailedFilter(name, error, _seconds(since), group)


async def find(job_id: AnyId, *, connection: str | None = None) -> StoredJob | FailedJob | FinishedJob | None:
    """The live or failed job with this id, or the finished one if it is kept (``keep_for``); None where there is none:
    it has ended, was removed, or never was.

    Raises:
        InvalidOption: ``job_id`` is no id.
    """
    driver, key = _driver(connection), _id(job_id)
    return await _find(driver, key)


async def _find(driver: Driver, key: JobId) -> StoredJob | FailedJob | FinishedJob | None:
    """Live ones first: a job that has ended by then is in the others when they are read."""
    found = await driver.jobs.get(key) or await driver.failed.get(key)
    if found is None and driver.finished is not None:
        return await driver.finished.get(key)
    return found


async def result(
    job_id: AnyId,
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - it says what it waited for
    connection: str | None = None,
) -> Any:
    """Wait until a job with ``keep_for`` has completed, and return what its ``handle`` returned, as JSON gives it back.

    ``timeout`` is seconds, 0 or more. The job must have been committed. It looks every tenth of a second or so; do not
    wait in the transaction that dispatches it, nor, on a worker with few slots, in a job.

    Raises:
        TimeoutError: the job has not ended within ``timeout``.
        JobFailed: it has failed for good.
        JobNotFound: there is no such job: it has ended without ``keep_for`` or its time is over, was removed, or was
            not committed.
        DecryptionFailed: the result is encrypted, and this process has no key for it.
        InvalidOption: ``job_id`` is no id, or ``timeout`` no time.
    """
    driver, key, seconds = _driver(connection), _id(job_id), _seconds(timeout) or 0.0
    give_up = clock.now() + seconds
    pause = _FIRST_LOOK
    while True:
        found = await _find(driver, key)
        if isinstance(found, FinishedJob):
            return json.loads(open_kept_result(current_keys(), found.result, found.name, found.id))
        if isinstance(found, FailedJob):
            raise JobFailed(f"{found.name} {key} has failed: {found.failure.summary}")
        if found is None:
            raise JobNotFound(
                f"there is no job {key}: it has ended without keep_for, its time is over, it was removed, or the "
                "transaction that dispatches it has not committed"
            )
        left = give_up - clock.now()
        if left <= 0:
            raise TimeoutError(f"{found.name} {key} has not ended after {seconds:g} s: it is {found.state}")
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_LOOK)


async def progress(job_id: AnyId, *, connection: str | None = None) -> JobProgress | None:
    """How far a job is, as it said last (``self.context.progress``): ``fraction``, ``text`` and ``reported_at``. Of a
    finished job that is kept, the end of it. None where it has said nothing.

    Raises:
        InvalidOption: ``job_id`` is no id.
    """
    driver, key = _driver(connection), _id(job_id)
    if driver.finished is None:
        return None
    finished = await driver.finished.get(key)
    if finished is None:
        return await driver.finished.progress(key)
    if finished.progress is None:
        return None
    return JobProgress(finished.progress, finished.progress_text or "", finished.finished_at)


async def finished_jobs(
    *, queue: str | None = None, name: str | None = None, limit: int = 100, connection: str | None = None
) -> list[FinishedJob]:
    """Completed jobs that are kept (``keep_for``), the latest first: up to ``limit``, 1 to 10,000.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    driver = _driver(connection)
    if driver.finished is None:
        return []
    return await driver.finished.latest(_queue(queue), name, _limit(limit))


async def jobs(
    *,
    queue: str | None = None,
    name: str | None = None,
    state: JobState | str | None = None,
    limit: int = 100,
    after: JobPlace | str | None = None,
    connection: str | None = None,
) -> JobPage:
    """Up to ``limit`` live jobs, 1 to 10,000, by queue, then in the order in which they would be claimed.

    One call looks at 10,000 jobs at most, so that a page may have fewer than there are: as long as its ``next`` is not
    None, ``after=page.next`` goes on. A ``state`` with a ``queue`` is found without looking at the jobs of most others.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    try:
        wanted = None if state is None else JobState(state)
    except ValueError:
        raise InvalidOption(f"a state is one of {', '.join(JobState)}, not {state!r}") from None
    place = JobPlace.parse(after) if isinstance(after, str) else after
    return await _driver(connection).jobs.page(JobFilter(_queue(queue), name, wanted), _limit(limit), place)


async def counts(*, connection: str | None = None) -> list[QueueCounts]:
    """One row per queue that has live or failed jobs, or is paused; by name.

    At most 12,000 jobs are looked at, so that it costs the same however many there are. Numbers below 10,000 are exact.
    Greater ones, or some of many queues with thousands of jobs, are of the last count that a worker has made, and
    ``age`` says how many seconds ago that was. Before there is one, ``at_least`` is true. For a connection on Redis all
    numbers are exact.
    """
    return await _driver(connection).queues.counts()


def _metrics(connection: str | None) -> MetricStore:
    driver = _driver(connection)
    if driver.metrics is None:
        raise ConfigurationError(f"the connection {driver.name!r} keeps no metrics: a database does")
    return driver.metrics


def _span(since: Duration) -> float:
    return min(_seconds(since) or 0.0, METRICS_KEPT)


async def metrics(
    *,
    queue: str | None = None,
    name: str | None = None,
    since: Duration = 3_600,
    connection: str | None = None,
) -> list[MetricPoint]:
    """What became of attempts in the last ``since`` seconds, at most 90 days, the oldest first: of all queues or one,
    and of all classes of jobs or the ``name`` of one, as stored.

    Points are of one minute for a day, of ten minutes for a week, of an hour before that. Several may be of the same
    time, one for each worker: `merged` in ``outbox.drivers.metrics`` makes one of them. Workers write once a minute.

    Raises:
        ConfigurationError: the connection is no database.
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    return await _metrics(connection).points(_span(since), queue=_queue(queue), name=name)


async def depths(
    *, queue: str | None = None, since: Duration = 3_600, connection: str | None = None
) -> list[DepthPoint]:
    """How many jobs each queue had in the last ``since`` seconds, at most 90 days, the oldest first. Workers count once
    a minute, or less often where that takes longer than 0.3 s.

    Raises:
        ConfigurationError: the connection is no database.
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    return await _metrics(connection).depths(_span(since), queue=_queue(queue))


async def workers(*, connection: str | None = None) -> list[WorkerStatus]:
    """The worker processes, the longest running first, each with up to 200 of the jobs that it runs."""
    return await _driver(connection).workers.all()


async def cancel(
    job_id: AnyId, *, session: AnySession | None = None, by: str | None = None, connection: str | None = None
) -> bool:
    """Remove a live job; False where there is none. The handler of one that runs is stopped within a second:
    `asyncio.CancelledError` is raised in it, or ``self.context.cancelled`` is set. False, too, where it is too late:
    the job has ended.

    With a ``session``, the job goes if and only if that transaction commits; so does one that was dispatched in it
    before. The row stays locked until then, so that a worker that has finished the job waits with its end: cancel late
    in the transaction. A job that is for another connection, Redis, is not reached by a session: the answer is False.

    Raises:
        InvalidOption: ``job_id`` is no id, or a ``connection`` was given with the session.
        SessionUnusable: the session cannot carry it; the message says why.
    """
    if session is None:
        driver = _driver(connection)
        with acting(by, "cancel", {"id": str(job_id)}):
            cancelled = await driver.jobs.cancel([_id(job_id)])
        if cancelled:
            announce_cancelled(current_client(), driver.name)
        return bool(cancelled)
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        return await session.run_sync(cancel_in, job_id, connection, by)
    return cancel_in(session, job_id, connection, by)


def cancel_in(session: AnySession, job_id: AnyId, connection: str | None, by: str | None = None) -> bool:
    """`cancel` in the transaction of a sync ``Session``, with the same errors."""
    if connection is not None:
        raise InvalidOption("a session reaches the jobs of its own database: give a session or a connection, not both")
    target, client = sync_session(session), current_client()
    with acting(by, "cancel", {"id": str(job_id)}):
        cancelled = cancel_in_session(target, _id(job_id))
    if cancelled:
        after_commit(target, partial(announce_cancelled, client))
    return cancelled


async def reschedule(
    job_id: AnyId,
    *,
    at: datetime | None = None,
    delay: Duration | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> bool:
    """Have a waiting job run at another time: ``at``, an aware datetime, or ``delay`` seconds from now; 0 is now. False
    where there is no such live job. Idle workers are woken.

    Exactly one of the two is given, at most ten years ahead; a time that has passed is now. A job that runs is left as
    it is. So is one whose time a policy decides: it is parked, has an ordering key, or its key or rate limit has given
    it its turn.

    Raises:
        JobNotWaiting: the job runs, or a policy decides its time; the message says which.
        InvalidOption: ``job_id`` is no id, or a time is of a wrong type or out of its range.
    """
    seconds = _seconds(delay)
    if (at is None) == (seconds is None):
        raise InvalidOption("give the time at which the job is to run, or its delay, one of the two")
    if at is not None and not isinstance(at, datetime):
        raise InvalidOption(f"a time at which a job runs is an aware datetime, not {at!r}")
    due = as_delay(at or seconds or 0.0)
    wanted = JobChange(at=due) if isinstance(due, datetime) else JobChange(delay=due)
    with acting(by, "reschedule", {"id": str(job_id), "at": None if at is None else str(at), "delay": seconds}):
        return await change_job(_driver(connection), _id(job_id), wanted)


async def change(
    job_id: AnyId,
    *,
    queue: str | None = None,
    priority: int | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> bool:
    """Give a waiting job another queue, another priority, or both; False where there is no such live job. Idle workers
    are woken.

    A job that is due joins the end of its new queue or priority; a delayed one keeps its time. A job that runs is left
    as it is. On Redis, a job keeps its queue.

    Raises:
        JobNotWaiting: the job runs, or its connection cannot give it another queue.
        InvalidOption: ``job_id`` is no id, or nothing is to change, or an option is out of its range.
    """
    if queue is None and priority is None:
        raise InvalidOption("nothing is to change: give the job a queue or a priority")
    wanted = JobChange(_queue(queue), None if priority is None else check_priority(priority))
    with acting(by, "change", {"id": str(job_id), "queue": queue, "priority": priority}):
        return await change_job(_driver(connection), _id(job_id), wanted)


async def clear(queue: str, *, by: str | None = None, connection: str | None = None) -> int:
    """Remove every job of a queue that no worker holds; return how many.

    Raises:
        InvalidOption: no queue can have this name.
    """
    with acting(by, "clear", {"queue": queue}):
        return await _driver(connection).queues.clear(check_queue(queue))


async def failed_jobs(
    *,
    queue: str | None = None,
    name: str | None = None,
    error: str | None = None,
    since: Duration | None = None,
    group: str | None = None,
    limit: int = 100,
    before: AnyId | None = None,
    connection: str | None = None,
) -> list[FailedJob]:
    """Up to ``limit`` failed jobs, 1 to 10,000, the latest failure first; ``before`` goes on after the last id of an
    earlier page.

    ``name`` is the job's, as stored. ``error`` is a type of exception, with or without its module, or a part of the
    message. ``since`` is how long ago a job may have failed, in seconds or as a ``timedelta``. ``group`` is the
    fingerprint of a `FailedGroup`.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
        JobNotFound: ``before`` is no longer there.
    """
    matching = _matching(name, error, since, group)
    last = None if before is None else _id(before)
    return await _driver(connection).failed.page(_queue(queue), _limit(limit), last, matching=matching)


async def failed_groups(
    *,
    queue: str | None = None,
    name: str | None = None,
    error: str | None = None,
    since: Duration | None = None,
    group: str | None = None,
    limit: int = 100,
    connection: str | None = None,
) -> list[FailedGroup]:
    """Failed jobs counted by name, type of exception and fingerprint, the largest groups first. Arguments and errors
    are those of `failed_jobs`."""
    matching = _matching(name, error, since, group)
    return await _driver(connection).failed.groups(_queue(queue), _limit(limit), matching=matching)


async def retry(job_id: AnyId, *, by: str | None = None, connection: str | None = None) -> bool:
    """Put a failed job back, under the same id and with no attempts counted; False where there is none.

    Raises:
        InvalidOption: ``job_id`` is no id.
        InvalidPayload: its payload is not JSON; it stays failed.
    """
    with acting(by, "retry", {"id": str(job_id)}):
        return bool(await _driver(connection).failed.retry([_id(job_id)]))


async def retry_all(
    *,
    queue: str | None = None,
    name: str | None = None,
    error: str | None = None,
    since: Duration | None = None,
    group: str | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> int:
    """Put back all that had failed when this began, or those that are chosen as in `failed_jobs`; return how many.
    Those whose payload is not JSON stay.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    matching = _matching(name, error, since, group)
    with acting(by, "retry", {"queue": queue} | asdict(matching)):
        return await _driver(connection).failed.retry_all(_queue(queue), matching=matching)


async def forget(job_id: AnyId, *, by: str | None = None, connection: str | None = None) -> bool:
    """Remove a failed job for good; False where there is none.

    Raises:
        InvalidOption: ``job_id`` is no id.
    """
    with acting(by, "forget", {"id": str(job_id)}):
        return bool(await _driver(connection).failed.forget([_id(job_id)]))


async def forget_all(
    *,
    queue: str | None = None,
    name: str | None = None,
    error: str | None = None,
    since: Duration | None = None,
    group: str | None = None,
    older_than: Duration | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> int:
    """Remove all failed jobs for good, or those that are chosen as in `failed_jobs`; return how many. ``older_than`` is
    how long ago they must have failed.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    matching = _matching(name, error, since, group)
    age = _seconds(older_than)
    with acting(by, "forget", {"queue": queue, "older_than": age} | asdict(matching)):
        return await _driver(connection).failed.flush(_queue(queue), age, matching=matching)
