"""Cancel or change a live job, and dispatch a copy of a job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from outbox.client_state import current_keys
from outbox.console.formatting import indented_json
from outbox.console.time_spans import parse_span
from outbox.dispatch import dispatch
from outbox.drivers.base import Driver
from outbox.drivers.values import FailedJob, FinishedJob, JobChange, StoredJob
from outbox.encrypted_jobs import open_payload, token_of
from outbox.envelope import Headers, deserialize
from outbox.errors import DecryptionFailed, DispatchError, InvalidOption, InvalidPayload, JobError, JobNotFound
from outbox.ids import JobId
from outbox.job import Job
from outbox.job_changes import cancel_jobs, change_job
from outbox.options import as_delay, check_queue
from outbox.relay.route import relayed_connection
from outbox.web.parameters import parse_id
from outbox.web.redaction import fields_of
from outbox.web.rights import Right
from outbox.web.view import View

LONGEST_PAYLOAD = 1024 * 1024
COPY_FIELDS = ("connection", "payload", "queue", "priority", "delay", "forget")
Copied = StoredJob | FailedJob | FinishedJob
_HEADERS = ("max_tries", "timeout", "backoff")
"""Options of the dispatch that a copy keeps."""


async def cancel(view: View) -> Response:
    job_id = parse_id(view.request.path_params["id"])
    connection = view.connection()
    with view.readings.stores.as_client():
        cancelled = await view.change(connection, lambda driver: cancel_jobs(driver, [job_id]))
    if not cancelled:
        raise JobNotFound(f"there is no live job {job_id} any more: it has ended, or failed")
    return view.done(f"Cancelled the job {job_id}.", "/jobs")


async def run_now(view: View) -> Response:
    return await _changed(view, JobChange(delay=0.0), "The job runs as soon as a worker is free.")


async def reschedule(view: View) -> Response:
    """To a time, in UTC where it names no zone, or so long from now: ``5m``."""
    text = view.parameters.required("when").strip()
    seconds = parse_span(text)
    try:
        moment = datetime.fromisoformat(text) if seconds is None else None
    except ValueError:
        raise InvalidOption(f"{text[:40]!r} is no time such as 5m, 2h, 2026-03-02 or 2026-03-02T07:00+01:00") from None
    due = as_delay(seconds or 0.0 if moment is None else _aware(moment))
    wanted = JobChange(at=due) if isinstance(due, datetime) else JobChange(delay=due)
    return await _changed(view, wanted, "The job has another time.")


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


async def change(view: View) -> Response:
    queue, priority = view.parameters.text("queue"), view.parameters.text("priority")
    if queue is None and priority is None:
        raise InvalidOption("nothing is to change: give the job a queue or a priority")
    wanted = JobChange(None if queue is None else check_queue(queue), priority_digit(priority))
    return await _changed(view, wanted, "The job was changed.")


async def _changed(view: View, wanted: JobChange, message: str) -> Response:
    job_id = parse_id(view.request.path_params["id"])

    async def work(driver: Driver) -> bool:
        with view.readings.stores.as_client():
            return await change_job(driver, job_id, wanted)

    if not await view.change(view.connection(), work):
        raise JobNotFound(f"there is no live job {job_id} any more: it has ended, or failed")
    return view.done(message, f"/jobs/{job_id}")


async def show_copy(view: View) -> Response:
    """The form of a copy, with the payload of the job. A payload with hidden parts is copied as it is."""
    connection, job = await _found(view)
    return _form(view, connection, job, payload=indented_json(job.payload))


def _form(view: View, connection: str, job: Copied, payload: str, problem: str = "") -> Response:
    """What was typed stays in it, where there is a ``problem`` with it."""
    return view.page(
        "copy.html",
        f"Copy of {job.name}",
        id=job.id,
        name=job.name,
        connection=connection,
        queue=view.parameters.text("queue") or job.queue,
        priority=view.parameters.text("priority") or job.priority,
        delay=view.parameters.text("delay") or "",
        forget=view.parameters.text("forget") is not None,
        payload="" if _hidden(view, job) else payload,
        hidden=_hidden(view, job),
        problem=problem,
        failed=isinstance(job, FailedJob),
    )


def _hidden(view: View, job: Copied) -> str:
    """Why the payload cannot be edited; empty where it can."""
    if not view.sees_payloads:
        return "You may not see payloads: the copy has the payload of the job."
    if token_of(job.payload) is not None:
        return "The payload is encrypted: the copy has the payload of the job, which cannot be edited here."
    if fields_of(job.name) or view.redaction.has_hook:
        return "Parts of the payload are redacted: the copy has the payload of the job, which cannot be edited here."
    return ""


async def _found(view: View) -> tuple[str, Copied]:
    found = await view.readings.jobs.get(parse_id(view.request.path_params["id"]))
    if isinstance(found, FailedJob):
        return found.connection, found
    return found.connection, found.job


async def copy(view: View) -> Response:
    connection, job = await _found(view)
    given = view.parameters.text("payload")
    payload = job.payload if given is None or _hidden(view, job) else given
    try:
        job_id = await _dispatch(view, connection, job, payload)
    except (DispatchError, JobError) as error:
        return _form(view, connection, job, payload, str(error))
    message = f"Dispatched {job_id}."
    if isinstance(job, FailedJob) and view.parameters.text("forget") and view.may(Right.FORGET_FAILED):
        gone = await view.change(connection, lambda driver: driver.failed.forget([job.id]))
        message += " The failed job is forgotten." if gone else ""
    return view.done(message, f"/jobs/{job_id}")


async def _dispatch(view: View, connection: str, job: Copied, payload: str) -> JobId:
    """
    Raises:
        DispatchError, JobError: the class refuses the payload, or an option is wrong.
    """
    if relayed_connection(job.queue) is not None:
        raise InvalidOption("the job is on its way to another connection: copy it from there")
    options = Headers.load(job.headers).options
    kept: dict[str, Any] = {name: getattr(options, name) for name in _HEADERS}
    with view.readings.stores.as_client():
        if token_of(job.payload) is None:
            made = deserialize(job.name, payload, job.headers)
        else:
            made, kept["encrypt"] = _decrypted(connection, job), True
        return await dispatch(
            made,
            connection=connection,
            queue=view.parameters.text("queue") or job.queue,
            priority=_priority(view, job),
            delay=view.parameters.span("delay"),
            **kept,
        )


def _decrypted(connection: str, job: Copied) -> Job:
    """
    Raises:
        DecryptionFailed: this process has not the key of the payload.
        InvalidPayload: the class refuses the payload.
    """
    try:
        payload = open_payload(current_keys(), job.payload, job.headers, job.name, job.id, connection)
    except DecryptionFailed as error:
        raise DecryptionFailed(
            f"the payload is encrypted, and a copy needs its key in the process of the dashboard: {error}"
        ) from None
    try:
        return deserialize(job.name, payload, job.headers)
    except InvalidPayload:
        # What is wrong with a field may quote it.
        raise InvalidPayload(f"{job.name} refuses the payload, which is encrypted") from None


def _priority(view: View, job: Copied) -> int:
    given = priority_digit(view.parameters.text("priority"))
    return job.priority if given is None else given


def priority_digit(text: str | None) -> int | None:
    """
    Raises:
        InvalidOption: it is no priority.
    """
    if text is None:
        return None
    if len(text) != 1 or not text.isascii() or not text.isdigit():
        raise InvalidOption(f"a priority is a whole number from 0 (first) to 9, not {text[:20]!r}")
    return int(text)
