"""A transactional job queue for applications that keep their data in MySQL, MariaDB or SQLite.

A job is written in the transaction that writes the business data: it exists if and only if that transaction commits.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outbox import bulk, limits, schedules
from outbox.backoff import Backoff
from outbox.batching import Batch, add_to_batch, batch, batches, cancel_batch, dispatch_batch, retry_batch
from outbox.chains import dispatch_chain
from outbox.client import Outbox
from outbox.client_state import configure
from outbox.dispatch import dispatch, dispatch_many
from outbox.dispatch.middleware import CallNextDispatch, DispatchMiddleware
from outbox.drivers.bulk import BulkOperation, BulkPreview
from outbox.drivers.database import metadata
from outbox.drivers.filters import FailedGroup, JobPage, JobPlace
from outbox.drivers.metrics import DepthPoint, MetricPoint
from outbox.drivers.pauses import Pause
from outbox.drivers.values import (
    BatchStatus,
    FailedJob,
    FinishedJob,
    JobProgress,
    JobState,
    QueueCounts,
    RunningJob,
    StoredJob,
    WorkerStatus,
)
from outbox.errors import OutboxError
from outbox.ids import JobId
from outbox.inbox import inbox, receive
from outbox.job import CallNext, Job, Middleware
from outbox.job_context import JobContext
from outbox.middleware.context_variables import context_variables
from outbox.middleware.skip_if import skip_if
from outbox.middleware.throttle_exceptions import throttle_exceptions
from outbox.open_drivers import disconnect
from outbox.operations import (
    cancel,
    change,
    clear,
    counts,
    depths,
    failed_groups,
    failed_jobs,
    find,
    finished_jobs,
    forget,
    forget_all,
    jobs,
    metrics,
    progress,
    reschedule,
    result,
    retry,
    retry_all,
    workers,
)
from outbox.pausing import pause, pauses, resume
from outbox.payload_versions import upgrade
from outbox.policies.rate_limits import RateLimit
from outbox.resources import Resources
from outbox.schedule_declarations import schedule
from outbox.settings import Settings, WorkerOptions
from outbox.settlement import Failure

if TYPE_CHECKING:
    from outbox.embedded_worker import Worker
    from outbox.inline import dispatch_now

__all__ = [
    "Backoff",
    "Batch",
    "BatchStatus",
    "BulkOperation",
    "BulkPreview",
    "CallNext",
    "CallNextDispatch",
    "DepthPoint",
    "DispatchMiddleware",
    "FailedGroup",
    "FailedJob",
    "Failure",
    "FinishedJob",
    "Job",
    "JobContext",
    "JobId",
    "JobPage",
    "JobPlace",
    "JobProgress",
    "JobState",
    "MetricPoint",
    "Middleware",
    "Outbox",
    "OutboxError",
    "Pause",
    "QueueCounts",
    "RateLimit",
    "Resources",
    "RunningJob",
    "Settings",
    "StoredJob",
    "Worker",
    "WorkerOptions",
    "WorkerStatus",
    "add_to_batch",
    "batch",
    "batches",
    "bulk",
    "cancel",
    "cancel_batch",
    "change",
    "clear",
    "configure",
    "context_variables",
    "counts",
    "depths",
    "disconnect",
    "dispatch",
    "dispatch_batch",
    "dispatch_chain",
    "dispatch_many",
    "dispatch_now",
    "failed_groups",
    "failed_jobs",
    "find",
    "finished_jobs",
    "forget",
    "forget_all",
    "inbox",
    "jobs",
    "limits",
    "metadata",
    "metrics",
    "pause",
    "pauses",
    "progress",
    "receive",
    "reschedule",
    "result",
    "resume",
    "retry",
    "retry_all",
    "retry_batch",
    "schedule",
    "schedules",
    "skip_if",
    "throttle_exceptions",
    "upgrade",
    "workers",
]

# The distribution called `outbox` is an SMTP client, and its only file is a module of this name.
if Path(__file__).parent.with_suffix(".py").exists():
    warnings.warn(
        "the distribution `outbox` is installed beside `outbox-queue`; both are imported as `outbox`: "
        "run `pip uninstall outbox`",
        stacklevel=2,
    )


def __getattr__(name: str) -> Any:
    # An application that only dispatches needs nothing of what a worker is made of.
    if name == "Worker":
        from outbox.embedded_worker import Worker

        return Worker
    if name == "dispatch_now":
        from outbox.inline import dispatch_now

        return dispatch_now
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
