"""Operating from code that is not async."""

from __future__ import annotations

from outbox import batching, operations, pausing
from outbox import bulk as _bulk
from outbox import limits as _limits
from outbox import schedules as _schedules
from outbox.client_state import current_client
from outbox.dispatch import AnySession
from outbox.operations.arguments import AnyId
from outbox.operations.changes import cancel_in
from outbox.sync.blocking import blocking, in_session_or_blocking
from outbox.sync.loops import SyncLoops

batch = blocking(batching.batch)
batches = blocking(batching.batches)
cancel_batch = blocking(batching.cancel_batch)
retry_batch = blocking(batching.retry_batch)
change = blocking(operations.change)
clear = blocking(operations.clear)
counts = blocking(operations.counts)
metrics = blocking(operations.metrics)
depths = blocking(operations.depths)
failed_groups = blocking(operations.failed_groups)
failed_jobs = blocking(operations.failed_jobs)
find = blocking(operations.find)
finished_jobs = blocking(operations.finished_jobs)
progress = blocking(operations.progress)
result = blocking(operations.result)
forget = blocking(operations.forget)
forget_all = blocking(operations.forget_all)
jobs = blocking(operations.jobs)
pause = blocking(pausing.pause)
pauses = blocking(pausing.pauses)
reschedule = blocking(operations.reschedule)
resume = blocking(pausing.resume)
retry = blocking(operations.retry)
retry_all = blocking(operations.retry_all)
workers = blocking(operations.workers)


def cancel(
    job_id: AnyId,
    *,
    session: AnySession | None = None,
    by: str | None = None,
    connection: str | None = None,
) -> bool:
    """`outbox.cancel`, for code with a sync ``Session`` or none."""
    if session is not None:
        return cancel_in(session, job_id, connection, by)
    return current_client().part(SyncLoops).run_in_thread(operations.cancel(job_id, by=by, connection=connection))


class bulk:  # noqa: N801 - it stands for the module `outbox.bulk`
    """`outbox.bulk`, for code that is not async."""

    preview = staticmethod(blocking(_bulk.preview))
    start = staticmethod(blocking(_bulk.start))
    progress = staticmethod(blocking(_bulk.progress))
    operations = staticmethod(blocking(_bulk.operations))
    stop = staticmethod(blocking(_bulk.stop))


class limits:  # noqa: N801 - it stands for the module `outbox.limits`
    """`outbox.limits`, for code that is not async."""

    take = staticmethod(blocking(_limits.take))


class schedules:  # noqa: N801 - it stands for the module `outbox.schedules`
    """`outbox.schedules`, for code with a sync ``Session`` or none."""

    add = staticmethod(in_session_or_blocking(_schedules.add))
    remove = staticmethod(in_session_or_blocking(_schedules.remove))
    pause = staticmethod(in_session_or_blocking(_schedules.pause))
    resume = staticmethod(in_session_or_blocking(_schedules.resume))
