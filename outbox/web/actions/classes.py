"""Pause and resume a job class, and dispatch a job of it, from the form of its fields."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from outbox.console.formatting import line
from outbox.dispatch import dispatch
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms, check_target, check_text
from outbox.errors import ConfigurationError, DispatchError, JobError, UnknownJob
from outbox.ids import JobId
from outbox.job import Job
from outbox.pausing import pause_on, resume_on
from outbox.payload import load
from outbox.web.actions.jobs import priority_digit
from outbox.web.job_forms import PREFIX, FormFields, errors_of, fields_of, payload_of
from outbox.web.readings.classes import class_of
from outbox.web.rendering import with_query
from outbox.web.view import View

FIELDS = FormFields("connection", "name", "queue", "priority", "delay")


PAUSE_FIELDS = ("connection", "name", "reason", "for")


def _place(view: View) -> str:
    return with_query("/classes/one", {"connection": view.connection(), "name": view.parameters.required("name")})


async def pause(view: View) -> Response:
    name = view.parameters.required("name")
    reason, seconds = check_text(view.parameters.text("reason"), "a reason"), view.parameters.span("for")
    terms = PauseTerms(reason, None, seconds or None, view.viewer.name[:255])
    target = check_target(PauseTarget(PauseKind.JOB, name))
    done = await view.change(view.connection(), lambda driver: pause_on(driver, target, terms))
    return view.done(f"{line(name)} is paused." if done else f"{line(name)} was paused already.", _place(view))


async def resume(view: View) -> Response:
    name = view.parameters.required("name")
    target = check_target(PauseTarget(PauseKind.JOB, name))
    done = await view.change(view.connection(), lambda driver: resume_on(driver, target))
    return view.done(f"{line(name)} is resumed." if done else f"{line(name)} was not paused.", _place(view))


def _kind(view: View) -> type[Job]:
    """
    Raises:
        UnknownJob: this process does not have the class.
    """
    name = view.parameters.required("name")
    kind = class_of(view.readings.stores, name)
    if kind is None:
        raise UnknownJob(
            f"this dashboard does not know the class {name[:100]!r}: name its module in OUTBOX_JOBS, or import it"
        )
    return kind


async def show_form(view: View) -> Response:
    return _form(view, _kind(view), {}, {})


def _form(view: View, kind: type[Job], given: Mapping[str, str], errors: Mapping[str, str]) -> Response:
    return view.page(
        "dispatch.html",
        f"Dispatch {kind.name}",
        kind=kind,
        connection=view.connection(),
        fields=fields_of(kind, given, errors),
        problem=errors.get("", ""),
        given=view.parameters,
        prefix=PREFIX,
    )


async def dispatch_job(view: View) -> Response:
    kind = _kind(view)
    given = view.parameters.beginning_with(PREFIX)
    try:
        job = load(kind, kind.name, payload_of(kind, given))
        job_id = await _dispatch(view, job)
    except (ConfigurationError, DispatchError, JobError) as error:
        return _form(view, kind, given, errors_of(error))
    if not job_id.created:
        message = f"No job was made: its dispatch_if says no, or the job {job_id} has its unique key."
        place = with_query("/classes/one", {"connection": view.connection(), "name": kind.name})
        return view.done(message, place)
    return view.done(f"Dispatched {job_id}.", f"/jobs/{job_id}")


async def _dispatch(view: View, job: Job) -> JobId:
    parameters = view.parameters
    with view.readings.stores.as_client():
        return await dispatch(
            job,
            connection=view.connection(),
            queue=parameters.text("queue"),
            priority=priority_digit(parameters.text("priority")),
            delay=parameters.span("delay"),
        )
