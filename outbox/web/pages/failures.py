"""Failed jobs: groups of one cause, and the jobs of a group."""

from __future__ import annotations

from starlette.responses import Response

from outbox.drivers.filters import FAILED_EXAMINED, FailedFilter
from outbox.errors import InvalidOption
from outbox.fingerprint import is_fingerprint
from outbox.web.pages.queues import queue_of
from outbox.web.view import View

GROUP_FILTERS = ("queue", "name", "error", "group", "since", "limit")
FILTERS = (*GROUP_FILTERS, "connection", "before")


def matching_of(view: View) -> FailedFilter:
    """
    Raises:
        InvalidOption: a filter is none.
    """
    parameters = view.parameters
    group = parameters.text("group")
    if group is not None and not is_fingerprint(group):
        raise InvalidOption("group is the fingerprint of a group: 16 hexadecimal digits")
    return FailedFilter(parameters.text("name"), parameters.text("error"), parameters.span("since"), group)


def _queue(view: View) -> str | None:
    text = view.parameters.text("queue")
    return None if text is None else queue_of(text)


async def show_groups(view: View) -> Response:
    answers = await view.readings.failed.groups(matching_of(view), _queue(view), view.parameters.size)
    return view.page(
        "failures.html",
        "Failures",
        topics=("failures",),
        groups=answers.found,
        errors=answers.errors,
        now=await view.readings.now(view.readings.connections[0]) if answers.found else None,
        given=view.parameters.given(),
        several=len(view.readings.connections) > 1,
    )


async def show_jobs(view: View) -> Response:
    connection = view.connection()
    group, hours = await view.readings.failed.group(connection, matching_of(view), _queue(view))
    page = await view.readings.failed.page(
        connection, matching_of(view), _queue(view), view.parameters.size, view.parameters.job_id("before")
    )
    return view.page(
        "failed_jobs.html",
        "Failed jobs",
        topics=("failures",),
        page=page,
        examined=FAILED_EXAMINED,
        group=group,
        hours=hours,
        connection=connection,
        connections=view.readings.connections,
        now=await view.readings.now(connection),
        given=view.parameters.given(),
        is_filtered=not matching_of(view).is_any or _queue(view) is not None,
        message=lambda job: view.error(job.name, job.payload, job.failure.message),
    )
