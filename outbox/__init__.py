"""A transactional job queue for applications that keep their data in MySQL, MariaDB or SQLite.

A job is written in the transaction that writes the business data: it exists if and only if that transaction commits.
"""

import warnings
from pathlib import Path

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

# The distribution called `outbox` is an SMTP client, and its only file is a module of this name.
if Path(__file__).parent.with_suffix(".py").exists():
    warnings.warn(
        "the distribution `outbox` is installed beside `outbox-queue`; both are imported as `outbox`: "
        "run `pip uninstall outbox`",
        stacklevel=2,
    )
