"""Live jobs by pages, and all of one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from starlette.responses import RedirectResponse, Response

from outbox.console.formatting import indented_json
from outbox.console.running import RUNNING
from outbox.decrypted_jobs import decrypted_failed_job, decrypted_finished_job, decrypted_job
from outbox.drivers.filters import EXAMINED_PER_PAGE, FinishedPlace, JobFilter, JobPlace
from outbox.drivers.values import FailedJob, FinishedJob, JobState, StoredJob
from outbox.encryption import Keyring
from outbox.envelope import Headers
from outbox.errors import DecryptionFailed, InvalidOption, InvalidPayload
from outbox.web.pages.queues import queue_of
from outbox.web.parameters import parse_id
from outbox.web.rendering import segment
from outbox.web.traces import trace_link
from outbox.web.values import KeptJob, LiveJob
from outbox.web.view import View

T = TypeVar("T", FailedJob, FinishedJob, StoredJob)

FILTERS = ("connection", "queue", "name", "state", "limit", "after", "id")
_FINISHED = "finished"
_STATES = (*(state.value for state in JobState), RUNNING, _FINISHED)


async def show_all(view: View) -> Response:
    parameters = view.parameters
    if (wanted := parameters.text("id")) is not None:
        return RedirectResponse(f"{view.base}/jobs/{segment(str(parse_id(wanted.strip())))}", status_code=303)
    if parameters.text("state") == _FINISHED:
        return await _show_finished(view)
    connection = view.connection()
    running = parameters.text("state") == RUNNING
    state = None if running else _state(parameters.text("state"))
    matching = JobFilter(_queue(parameters.text("queue")), parameters.text("name"), state)
    after = parameters.text("after")
    if running:
        found = await view.readings.jobs.running(connection, matching, parameters.size)
    else:
        place = None if after is None else JobPlace.parse(after)
        found = await view.readings.jobs.page(connection, matching, parameters.size, place)
    return view.page(
        "jobs.html",
        "Jobs",
        topics=("jobs",),
        examined=EXAMINED_PER_PAGE,
        found=found,
        connection=connection,
        connections=view.readings.connections,
        given=parameters.given(),
        states=_STATES,
        is_filtered=running or matching != JobFilter(),
    )


async def _show_finished(view: View) -> Response:
    """Completed jobs with ``keep_for``."""
    parameters, connection = view.parameters, view.connection()
    matching, after = JobFilter(_queue(parameters.text("queue")), parameters.text("name")), parameters.text("after")
    place = None if after is None else FinishedPlace.parse(after)
    return view.page(
        "jobs.html",
        "Jobs",
        topics=("workers",),
        examined=EXAMINED_PER_PAGE,
        found=await view.readings.jobs.finished(connection, matching, parameters.size, place),
        connection=connection,
        connections=view.readings.connections,
        given=parameters.given(),
        states=_STATES,
        is_filtered=True,
        result=lambda job: view.payload(job.name, job.result),
    )


def _queue(text: str | None) -> str | None:
    return None if text is None else queue_of(text)


def _state(text: str | None) -> JobState | None:
    try:
        return None if text is None else JobState(text)
    except ValueError:
        raise InvalidOption(f"a state is one of {', '.join(_STATES)}, not {text!r}") from None


@dataclass(frozen=True, slots=True)
class Step:
    """A step in the life of a job. ``status`` is ``"done"``, ``"now"`` or ``"next"``."""

    title: str
    status: str
    when: datetime | None = None
    detail: str = ""


async def show_one(view: View) -> Response:
    job_id = parse_id(view.request.path_params["id"])
    found = await view.readings.jobs.get(job_id)
    if isinstance(found, FailedJob):
        return await _show_failed(view, found)
    if isinstance(found, KeptJob):
        return _show_kept(view, found)
    job, closed = _opened(view, found.job, lambda keys: decrypted_job(keys, found.connection, found.job))
    return view.page(
        "job.html",
        f"Job {job.id}",
        topics=(f"job:{job.id}",),
        found=found,
        job=job,
        life=_life(view, found),
        payload=view.payload(job.name, job.payload) + closed,
        headers=_headers(view, job.headers),
        links=_links(job.headers),
        trace=_trace(view, job.headers),
    )


async def _show_failed(view: View, found: FailedJob) -> Response:
    job, closed = _opened(view, found, lambda keys: decrypted_failed_job(keys, found))
    failure = job.failure
    return view.page(
        "failed_job.html",
        f"Failed job {job.id}",
        topics=(f"job:{job.id}",),
        job=job,
        now=await view.readings.now(_answering(view, job.connection)),
        message=view.error(job.name, job.payload, failure.message),
        traceback="" if failure.encrypted else view.error(job.name, job.payload, failure.traceback),
        payload=view.payload(job.name, job.payload) + closed,
        headers=_headers(view, job.headers),
        links=_links(job.headers),
        trace=_trace(view, job.headers),
    )


def _show_kept(view: View, found: KeptJob) -> Response:
    job, closed = _opened(view, found.job, lambda keys: decrypted_finished_job(keys, found.connection, found.job))
    return view.page(
        "finished_job.html",
        f"Finished job {job.id}",
        found=found,
        job=job,
        result=view.payload(job.name, job.result),
        told=job.progress_text if view.sees_payloads else None,
        payload=view.payload(job.name, job.payload) + closed,
        headers=_headers(view, job.headers),
        links=_links(job.headers),
        trace=_trace(view, job.headers),
    )


def _opened(view: View, job: T, decrypted: Callable[[Keyring], T]) -> tuple[T, str]:
    """The job as this viewer may see it, and why it stays encrypted for one with the right to see it decrypted."""
    keys = view.keys
    if keys is None:
        return job, ""
    try:
        return decrypted(keys), ""
    except (DecryptionFailed, InvalidPayload) as error:
        return job, f"\n{error}"


def _answering(view: View, connection: str) -> str:
    """A connection to ask for the time. Failed jobs of Redis are kept by the database, which knows more connections."""
    return connection if connection in view.readings.connections else view.connection()


def _headers(view: View, text: str) -> str:
    """Headers hold payloads of later jobs of a chain, and keys: they need the right to see payloads."""
    return indented_json(text) if view.sees_payloads else ""


def _trace(view: View, headers: str) -> str | None:
    """Where the trace of the dispatch is."""
    try:
        return trace_link(view.trace_url, Headers.load(headers).trace)
    except InvalidPayload:
        return None


def _links(headers: str) -> dict[str, str]:
    """Paths of the batch and of the first job of the chain, by what they are called."""
    try:
        read = Headers.load(headers)
    except InvalidPayload:
        return {}
    links = {}
    if read.batch is not None:
        links["batch"] = f"/batches/{read.batch.id}"
    if read.chain is not None:
        links[f"job 1 of its chain, of which it is job {read.chain.number}"] = f"/jobs/{read.chain.id}"
    return links


def _life(view: View, found: LiveJob) -> list[Step]:
    job = found.job
    steps = [Step("dispatched", "done", job.created_at)]
    if job.last_error is not None:
        error = view.error(job.name, job.payload, job.last_error)
        steps.append(Step("an attempt failed", "done", job.last_error_at, error))
    if job.state is JobState.RESERVED:
        where = f"on {found.worker.name}" if found.worker is not None else "its worker has not reported it yet"
        steps.append(Step(f"attempt {job.attempts} runs", "now", None, where))
    elif job.state is JobState.PARKED:
        steps.append(Step("parked", "now", None, "; ".join(found.policies)))
    else:
        title = {JobState.READY: "ready", JobState.DELAYED: "delayed until", JobState.RETRYING: "retried"}[job.state]
        steps.append(Step(title, "now", job.available_at))
        steps.append(Step(f"attempt {job.attempts + 1}", "next"))
    return [*steps, Step("completed, or failed for good", "next")]
