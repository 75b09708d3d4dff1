"""Failed jobs: look at them, put them back, remove them."""

from __future__ import annotations

from dataclasses import asdict

from outbox.drivers.audit import acting
from outbox.drivers.filters import FailedFilter, FailedGroup
from outbox.drivers.values import FailedJob
from outbox.job_changes import retry_all_jobs, retry_jobs
from outbox.operations.arguments import (
    AnyId,
    Duration,
    check_id,
    check_limit,
    driver_of,
    optional_queue,
    optional_text,
    seconds_of,
)


def _matching(name: str | None, error: str | None, since: Duration | None, group: str | None) -> FailedFilter:
    texts = optional_text("name", name), optional_text("error", error)
    return FailedFilter(*texts, seconds_of(since), optional_text("group", group))


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
    last = None if before is None else check_id(before)
    return await driver_of(connection).failed.page(optional_queue(queue), check_limit(limit), last, matching=matching)


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
    return await driver_of(connection).failed.groups(optional_queue(queue), check_limit(limit), matching=matching)


async def retry(job_id: AnyId, *, by: str | None = None, connection: str | None = None) -> bool:
    """Put a failed job back, under the same id and with no attempts counted; False where there is none.

    Raises:
        InvalidOption: ``job_id`` is no id.
        InvalidPayload: its payload is not JSON; it stays failed.
    """
    with acting(by, "retry", {"id": str(job_id)}):
        return bool(await retry_jobs(driver_of(connection), [check_id(job_id)]))


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
        return await retry_all_jobs(driver_of(connection), optional_queue(queue), matching)


async def forget(job_id: AnyId, *, by: str | None = None, connection: str | None = None) -> bool:
    """Remove a failed job for good; False where there is none.

    Raises:
        InvalidOption: ``job_id`` is no id.
    """
    with acting(by, "forget", {"id": str(job_id)}):
        return bool(await driver_of(connection).failed.forget([check_id(job_id)]))


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
    age = seconds_of(older_than)
    with acting(by, "forget", {"queue": queue, "older_than": age} | asdict(matching)):
        return await driver_of(connection).failed.flush(optional_queue(queue), age, matching=matching)
