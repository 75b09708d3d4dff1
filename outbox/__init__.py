"""A transactional job queue for applications that keep their data in MySQL, MariaDB or SQLite.

A job is written in the transaction that writes the business data: it exists if and only if that transaction commits.
"""

from outbox.backoff import Backoff
from outbox.connections import configure, disconnect
from outbox.dispatch import dispatch, dispatch_many
from outbox.drivers.database import metadata
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.job import Job, JobContext
from outbox.settings import Settings, WorkerOptions

__all__ = [
    "Backoff",
    "Job",
    "JobContext",
    "JobId",
    "OutboxError",
    "Settings",
    "WorkerOptions",
    "configure",
    "disconnect",
    "dispatch",
    "dispatch_many",
    "metadata",
]
