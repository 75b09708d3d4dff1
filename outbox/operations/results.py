"""What a job has returned, how far it is, and finished jobs that are kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from outbox import clock
from outbox.client_state import current_keys
from outbox.drivers.values import FailedJob, FinishedJob, JobProgress
from outbox.encrypted_jobs import open_kept_result
from outbox.errors import JobFailed, JobNotFound
from outbox.operations.arguments import (
    AnyId,
    check_id,
    check_limit,
    driver_of,
    optional_queue,
    optional_text,
    seconds_of,
)
from outbox.operations.live_jobs import find_on

_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25
"""Seconds between two looks for the end of a job."""


async def result(
    job_id: AnyId,
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - it says what it waited for
    connection: str | None = None,
) -> Any:
    """Wait until a job with ``keep_for`` has completed, and return what its ``handle`` returned, as JSON gives it back.

    ``timeout`` is seconds, 0 or more. The job must have been committed. It looks every quarter of a second or so; do
    not wait in the transaction that dispatches it, nor, on a worker with few slots, in a job.

    Raises:
        TimeoutError: the job has not ended within ``timeout``.
        JobFailed: it has failed for good.
        JobNotFound: there is no such job: it has ended without ``keep_for`` or its time is over, was removed, or was
            not committed.
        DecryptionFailed: the result is encrypted, and this process has no key for it.
        InvalidOption: ``job_id`` is no id, or ``timeout`` no time.
    """
    driver, key, seconds = driver_of(connection), check_id(job_id), seconds_of(timeout) or 0.0
    give_up = clock.now() + seconds
    pause = _FIRST_LOOK
    while True:
        found = await find_on(driver, key)
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
    driver, key = driver_of(connection), check_id(job_id)
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
    driver = driver_of(connection)
    if driver.finished is None:
        return []
    return await driver.finished.latest(optional_queue(queue), optional_text("name", name), check_limit(limit))
