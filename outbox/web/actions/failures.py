"""Retry and forget failed jobs: one, or all that match the filters of a page."""

from __future__ import annotations

from starlette.responses import Response

from outbox.console.formatting import counted
from outbox.drivers.filters import FailedFilter
from outbox.errors import JobNotFound
from outbox.ids import JobId
from outbox.job_changes import retry_all_jobs, retry_jobs
from outbox.web.pages.failures import matching_of
from outbox.web.pages.queues import queue_of
from outbox.web.parameters import parse_id
from outbox.web.rendering import with_query
from outbox.web.view import View

FIELDS = ("connection", "queue", "name", "error", "group", "since")


def _chosen(view: View) -> tuple[str | None, FailedFilter]:
    queue = view.parameters.text("queue")
    return None if queue is None else queue_of(queue), matching_of(view)


async def retry_all(view: View) -> Response:
    queue, matching = _chosen(view)
    retried = await view.change(view.connection(), lambda driver: retry_all_jobs(driver, queue, matching))
    left = await view.change(view.connection(), lambda driver: driver.failed.unretryable(queue, matching=matching))
    message = f"Retried {counted(retried, 'failed job')}."
    if left:
        message += f" {len(left)} stay: their payload or headers are not JSON."
    return view.done(message, with_query("/failures/jobs", view.parameters.given()))


async def forget_all(view: View) -> Response:
    queue, matching = _chosen(view)
    removed = await view.change(view.connection(), lambda driver: driver.failed.flush(queue, matching=matching))
    message = f"Forgot {counted(removed, 'failed job')}."
    return view.done(message, with_query("/failures/jobs", view.parameters.given()))


def _job_id(view: View) -> JobId:
    return parse_id(view.request.path_params["id"])


async def retry(view: View) -> Response:
    job_id = _job_id(view)
    if not await view.change(view.connection(), lambda driver: retry_jobs(driver, [job_id])):
        raise JobNotFound(f"there is no failed job {job_id} any more: it was retried or forgotten")
    return view.done("The job was put back.", f"/jobs/{job_id}")


async def forget(view: View) -> Response:
    job_id = _job_id(view)
    if not await view.change(view.connection(), lambda driver: driver.failed.forget([job_id])):
        raise JobNotFound(f"there is no failed job {job_id} any more: it was retried or forgotten")
    return view.done(f"Forgot the failed job {job_id}.", "/failures")
