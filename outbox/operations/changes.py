"""Cancel a live job, or give a waiting one another time, queue or priority."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from outbox.client_state import current_client
from outbox.dispatch import AnySession, sync_session
from outbox.drivers.audit import acting
from outbox.drivers.database.jobs.cancel import cancel_in_session
from outbox.drivers.values import JobChange
from outbox.errors import InvalidOption
from outbox.job_changes import cancel_jobs, change_job
from outbox.operations.arguments import AnyId, Duration, check_id, driver_of, optional_queue, seconds_of
from outbox.options import as_delay, check_priority
from outbox.wakeups.after_commit import after_commit
from outbox.wakeups.announce import announce_cancelled


async def cancel(
    job_id: AnyId, *, session: AnySession | None = None, by: str | None = None, connection: str | None = None
) -> bool:
    """Remove a live job; False where there is none. The handler of one that runs is stopped within a second:
    `asyncio.CancelledError` is raised in it, or ``self.context.cancelled`` is set. False, too, where it is too late:
    the job has ended. One that was relayed to another connection is removed there.

    With a ``session``, the job goes if and only if that transaction commits; so does one that was dispatched in it
    before. The row stays locked until then, so that a worker that has finished the job waits with its end: cancel late
    in the transaction. A job that is for another connection, Redis, is not reached by a session: the answer is False.

    Raises:
        InvalidOption: ``job_id`` is no id, or a ``connection`` was given with the session.
        SessionUnusable: the session cannot carry it; the message says why.
    """
    if session is None:
        driver = driver_of(connection)
        with acting(by, "cancel", {"id": str(job_id)}):
            return bool(await cancel_jobs(driver, [check_id(job_id)]))
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
        cancelled = cancel_in_session(target, check_id(job_id))
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
    seconds = seconds_of(delay)
    if (at is None) == (seconds is None):
        raise InvalidOption("give the time at which the job is to run, or its delay, one of the two")
    if at is not None and not isinstance(at, datetime):
        raise InvalidOption(f"a time at which a job runs is an aware datetime, not {at!r}")
    due = as_delay(at or seconds or 0.0)
    wanted = JobChange(at=due) if isinstance(due, datetime) else JobChange(delay=due)
    with acting(by, "reschedule", {"id": str(job_id), "at": None if at is None else str(at), "delay": seconds}):
        return await change_job(driver_of(connection), check_id(job_id), wanted)


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
    wanted = JobChange(optional_queue(queue), None if priority is None else check_priority(priority))
    with acting(by, "change", {"id": str(job_id), "queue": queue, "priority": priority}):
        return await change_job(driver_of(connection), check_id(job_id), wanted)
