"""Live jobs that run now, found by what workers say of themselves: nothing is searched for them."""

from __future__ import annotations

from outbox.console.connections import Stores
from outbox.drivers.base import Driver
from outbox.drivers.filters import JobFilter, JobPage
from outbox.drivers.pauses import names_of_keys
from outbox.drivers.values import JobState, StoredJob

RUNNING = "running"
"""The state that the command takes beside those of `JobState`."""


async def running_pages(stores: Stores, matching: JobFilter, limit: int) -> dict[str, JobPage]:
    """The jobs that workers named in their last heartbeats and still hold, the longest running of each worker first."""
    return await stores.ask(lambda driver: running_page(driver, matching, limit))


async def running_page(driver: Driver, matching: JobFilter, limit: int) -> JobPage:
    """As `running_pages`, of one connection."""
    found: list[StoredJob] = []
    for worker in await driver.workers.all():
        for running in worker.jobs:
            wanted = matching.queue in {None, running.queue} and matching.name in {None, running.name}
            job = await driver.jobs.get(running.id) if wanted and len(found) < limit else None
            if job is None or job.state is not JobState.RESERVED:
                continue
            if matching.key in {None, *names_of_keys(job.headers)}:
                found.append(job)
    return JobPage(found, None)
