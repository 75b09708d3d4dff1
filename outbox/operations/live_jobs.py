"""Find one job, or look at live jobs page by page."""

from __future__ import annotations

from outbox.drivers.base import Driver
from outbox.drivers.filters import JobFilter, JobPage, JobPlace
from outbox.drivers.values import FailedJob, FinishedJob, JobState, StoredJob
from outbox.errors import InvalidOption
from outbox.ids import JobId
from outbox.operations.arguments import AnyId, check_id, check_limit, driver_of, optional_queue, optional_text


async def find(job_id: AnyId, *, connection: str | None = None) -> StoredJob | FailedJob | FinishedJob | None:
    """The live or failed job with this id, or the finished one if it is kept (``keep_for``); None where there is none:
    it has ended, was removed, or never was.

    Raises:
        InvalidOption: ``job_id`` is no id.
    """
    driver, key = driver_of(connection), check_id(job_id)
    return await find_on(driver, key)


async def find_on(driver: Driver, key: JobId) -> StoredJob | FailedJob | FinishedJob | None:
    """Live ones first: a job that has ended by then is in the others when they are read."""
    found = await driver.jobs.get(key) or await driver.failed.get(key)
    if found is None and driver.finished is not None:
        return await driver.finished.get(key)
    return found


async def jobs(
    *,
    queue: str | None = None,
    name: str | None = None,
    state: JobState | str | None = None,
    key: str | None = None,
    limit: int = 100,
    after: JobPlace | str | None = None,
    connection: str | None = None,
) -> JobPage:
    """Up to ``limit`` live jobs, 1 to 10,000, by queue, then in the order in which they would be claimed.

    ``key`` is the name of an ordering, concurrency or fair key, such as ``customer:7``.

    One call looks at 4,000 jobs at most, so that a page may have fewer than there are: as long as its ``next`` is not
    None, ``after=page.next`` goes on. A ``state`` with a ``queue`` is found without looking at the jobs of most others.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
    """
    try:
        wanted = None if state is None else JobState(state)
    except ValueError:
        raise InvalidOption(f"a state is one of {', '.join(JobState)}, not {state!r}") from None
    place = JobPlace.parse(after) if isinstance(after, str) else after
    if place is not None and not isinstance(place, JobPlace):
        raise InvalidOption(f"after is the `next` of an earlier page, not {after!r}")
    matching = JobFilter(optional_queue(queue), optional_text("name", name), wanted, optional_text("key", key))
    return await driver_of(connection).jobs.page(matching, check_limit(limit), place)
