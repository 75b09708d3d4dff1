"""What a drain needs of a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple

from outbox.drivers.base import Driver, JobClaims, PolicyStore, QueueControl
from outbox.ids import JobId
from outbox.middleware.deadlines import times_in
from outbox.middleware.job_sessions import JobSessions


class Store(NamedTuple):
    name: str
    jobs: JobClaims
    queues: QueueControl
    policies: PolicyStore | None
    sessions: JobSessions
    """For jobs whose ``handle`` takes one."""
    times: Callable[[JobId], Awaitable[tuple[datetime, datetime] | None]]
    """When a job was dispatched, and now, by the clock of the store. None where the job is not known."""

    @classmethod
    def of(cls, driver: Driver) -> Store:
        urls = {} if driver.session_url is None else {driver.name: driver.session_url}
        times = partial(times_in, driver.jobs.get, driver.now)
        return cls(driver.name, driver.jobs, driver.queues, driver.policies, JobSessions(urls, 1), times)
