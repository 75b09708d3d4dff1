"""Bulk operations and the audit log, and the page from which an operation begins."""

from __future__ import annotations

from starlette.responses import Response

from outbox.bulk import verb_of
from outbox.drivers.bulk import BulkFilter, BulkRequest, Verb
from outbox.drivers.values import FailedJob, StoredJob
from outbox.web.redaction import HIDDEN
from outbox.web.rights import Right
from outbox.web.view import View

PARAMETERS = ("connection", "limit", "before", "audit_before")
FILTERS = ("connection", "queue", "name", "key", "error", "group", "since", "older_than", "to")
RIGHTS = {
    Verb.CANCEL: Right.CLEAR_QUEUES,
    Verb.RETRY: Right.RETRY_FAILED,
    Verb.FORGET: Right.FORGET_FAILED,
    Verb.MOVE: Right.CHANGE_JOBS,
}
"""What a viewer needs to begin an operation. A cancellation may empty a queue."""


async def show_all(view: View) -> Response:
    connection, parameters = view.connection(), view.parameters
    page = await view.readings.operations.page(
        connection, parameters.size, parameters.job_id("before"), parameters.job_id("audit_before")
    )
    return view.page(
        "operations.html",
        "Operations",
        topics=("operations",),
        page=page,
        connection=connection,
        connections=view.readings.connections,
        given=parameters.given(),
        target=lambda entry: ", ".join(f"{name} {value}" for name, value in _shown(view, dict(entry.target)).items()),
        chosen=lambda operation: _shown(view, operation.request.matching.given()),
        said_of=lambda text: text if view.sees_payloads else HIDDEN,
    )


def _shown(view: View, given: dict[str, object]) -> dict[str, object]:
    """Keys and texts of errors need the right to see payloads."""
    hidden = set() if view.sees_payloads else {"key", "error"}
    return {name: HIDDEN if name in hidden else value for name, value in given.items()}


def request_of(view: View, verb: Verb) -> BulkRequest:
    """
    Raises:
        InvalidOption: a part of the filter is out of its range.
    """
    text, span = view.parameters.text, view.parameters.span
    texts = {part: text(part) for part in ("queue", "name", "key", "error", "group")}
    matching = BulkFilter(**texts, since=span("since"), older_than=span("older_than"))
    return BulkRequest(verb, matching, text("to") if verb is Verb.MOVE else None).checked()


async def show_new(view: View) -> Response:
    """The form, and beneath it what would be done: how many jobs, and the first of them."""
    given, connection = view.parameters.given(), view.connection()
    verb = verb_of(given["verb"] or Verb.RETRY)
    request = None
    if given["verb"] and (verb is not Verb.MOVE or given["to"]):
        request = request_of(view, verb)
    return view.page(
        "new_operation.html",
        "New operation",
        connection=connection,
        connections=view.readings.connections,
        given=given,
        verb=verb,
        verbs=list(Verb),
        right=RIGHTS[verb],
        found=None if request is None else await view.readings.operations.preview(connection, request),
        error=lambda job: _error(view, job),
    )


def _error(view: View, job: StoredJob | FailedJob) -> str:
    text = job.failure.summary if isinstance(job, FailedJob) else job.last_error
    return "" if text is None else view.error(job.name, job.payload, text)
