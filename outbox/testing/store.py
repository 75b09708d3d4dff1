"""What a drain needs of a connection."""

from __future__ import annotations

from typing import NamedTuple

from outbox.drivers.base import Driver, JobClaims, PolicyStore, QueueControl
from outbox.middleware.job_sessions import JobSessions


class Store(NamedTuple):
    name: str
    jobs: JobClaims
    queues: QueueControl
    policies: PolicyStore | None
    sessions: JobSessions
    """For jobs whose ``handle`` takes one."""

    @classmethod
    def of(cls, driver: Driver) -> Store:
        urls = {} if driver.session_url is None else {driver.name: driver.session_url}
        return cls(driver.name, driver.jobs, driver.queues, driver.policies, JobSessions(urls, 1))
