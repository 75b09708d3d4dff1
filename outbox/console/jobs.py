"""``jobs`` and ``show``: pages of live jobs, and all details of one job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import click

from outbox import registry
from outbox.client_state import current_settings
from outbox.console import finished_jobs, json_views, tables
from outbox.console.command import queue as queue_type
from outbox.console.connections import Stores, on_connections
from outbox.console.decryption import decrypt_option, indented_payload
from outbox.console.failed_jobs import described_failure
from outbox.console.formatting import age, ago, block, due, indented_json, queue_name
from outbox.console.id_lookup import look_up
from outbox.console.job_notes import notes_on
from outbox.console.output import Output
from outbox.console.running import RUNNING, running_pages
from outbox.console.suggestions import unknown_name, unknown_queue
from outbox.decrypted_jobs import decrypted_failed_job, decrypted_job
from outbox.drivers.base import Driver
from outbox.drivers.filters import EXAMINED_PER_PAGE, JobFilter, JobPage, JobPlace
from outbox.drivers.pauses import described as described_pause
from outbox.drivers.pauses import pause_of
from outbox.drivers.values import JobState, RunningJob, StoredJob, WorkerStatus
from outbox.encryption import keyring
from outbox.errors import ConfigurationError, InvalidOption, JobError, JobNotFound
from outbox.ids import JobId
from outbox.job import Job

_LONGEST_PAGE = 10_000
_FINISHED = "finished"


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--queue", type=queue_type, help="Only this queue.")
@click.option("--name", metavar="NAME", help="Only jobs of this name, as `outbox jobs` shows it.")
@click.option(
    "--state",
    type=click.Choice([*(state.value for state in JobState), RUNNING, _FINISHED]),
    help="Only jobs in this state.",
)
@click.option("--key", metavar="KEY", help="Only jobs with this ordering, concurrency or fair key: customer:7.")
@click.option("--limit", type=click.IntRange(1, _LONGEST_PAGE), default=50, show_default=True, help="Jobs per page.")
@click.option("--after", metavar="PLACE", help="Continue after a page, with the place that it printed.")
@on_connections
async def jobs(
    stores: Stores,
    output: Output,
    job_id: str | None,
    queue: str | None,
    name: str | None,
    state: str | None,
    key: str | None,
    limit: int,
    after: str | None,
) -> None:
    """List live jobs by queue, then in the order of claims; `--state finished`: completed jobs with keep_for.

    A page examines at most 4,000 jobs. Name a queue to find ready, delayed or retrying jobs among more. The jobs that
    are running are those of the workers' last heartbeats, at most 200 of each. With an ID: as `outbox show ID`.
    """
    if job_id is not None:
        await _alone(stores, output, job_id, (queue, name, state, key, after))
        return
    _check_options(state, key, after)
    if state == _FINISHED:
        await finished_jobs.listed(stores, output, queue, name, limit, after)
        return
    running = state == RUNNING
    matching = JobFilter(queue, name, None if state is None or running else JobState(state), key)
    pages = await (running_pages(stores, matching, limit) if running else _pages(stores, matching, limit, after))
    found = [(connection, job) for connection, page in pages.items() for job in page.jobs]
    places = {connection: f"{connection}/{page.next}" for connection, page in pages.items() if page.next is not None}
    place = next(iter(places.values()), None)
    reasons = await _reasons(stores, found)
    if output.as_json:
        listed = [json_views.live_job(*each) | {"parked": reasons.get(each[1].id)} for each in found]
        output.document(stores.document(jobs=listed, next=place))
    elif found:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(tables.jobs(found, now, reasons, several=stores.several))
    else:
        output.print("No jobs." if matching == JobFilter() and not running else "No such jobs.")
    if place is not None:
        searched = "" if found else f"None of the {EXAMINED_PER_PAGE:,} jobs examined; "
        output.note(f"{searched}there are more: --after {place}")
    elif not found and after is None:
        for problem in (await unknown_name(stores, name), await unknown_queue(stores, queue)):
            if problem is not None:
                output.note(problem)


async def _alone(stores: Stores, output: Output, job_id: str, others: Sequence[str | None]) -> None:
    if any(others):
        raise click.UsageError("an ID names one job: leave out --queue, --name, --state, --key and --after")
    await _show_one(stores, output, job_id, decrypt=False)


def _check_options(state: str | None, key: str | None, after: str | None) -> None:
    if state == RUNNING and after is not None:
        raise click.UsageError("--after goes on where a page of jobs ended: --state running has one page")
    if state == _FINISHED and key is not None:
        raise click.UsageError("--key selects live jobs: leave it out with --state finished")


async def _reasons(stores: Stores, found: Sequence[tuple[str, StoredJob]]) -> dict[JobId, str]:
    """Why jobs are paused or parked."""
    reasons: dict[JobId, str] = {}

    async def read(driver: Driver) -> None:
        pauses = await driver.pauses.all()
        for connection, job in found:
            if connection != driver.name:
                continue
            if (pause := pause_of(pauses, job)) is not None:
                reasons[job.id] = described_pause(pause)
            elif job.state is JobState.PARKED and driver.policies is not None:
                told = [each for each in await driver.policies.explain(job) if each.startswith("parked")]
                reasons.update({job.id: told[0]} if told else {})

    if found:
        await stores.ask(read)
    return reasons


async def _pages(stores: Stores, matching: JobFilter, limit: int, after: str | None) -> dict[str, JobPage]:
    """Read one page from the connections, one after the other.

    Raises:
        click.UsageError: ``after`` is not a place that a page printed.
    """
    begin: JobPlace | None = None
    first = stores.names[0]
    if after is not None:
        connection, _, text = after.partition("/")
        first = connection if text else first
        if first not in stores.names:
            raise click.UsageError(f"--after names the connection {first!r}, which is not read")
        try:
            begin = JobPlace.parse(text or after)
        except InvalidOption as error:
            raise click.UsageError(f"--after: {error}") from error
    pages: dict[str, JobPage] = {}
    waiting = stores.names[stores.names.index(first) :]
    room = limit

    async def read(driver: Driver) -> JobPage | None:
        nonlocal room
        if driver.name not in waiting or any(page.next is not None for page in pages.values()) or room == 0:
            return None
        page = await driver.jobs.page(matching, room, begin if driver.name == first else None)
        room -= len(page.jobs)
        pages[driver.name] = page
        return page

    await stores.ask(read)
    return pages


@click.command()
@click.argument("job_id", metavar="ID")
@decrypt_option
@on_connections
async def show(stores: Stores, output: Output, job_id: str, decrypt: bool) -> None:
    """Show all details of one job: live, failed, or finished if it is kept."""
    await _show_one(stores, output, job_id, decrypt=decrypt)


async def _show_one(stores: Stores, output: Output, job_id: str, *, decrypt: bool) -> None:
    """
    Raises:
        JobNotFound: no such job is there.
    """
    for connection, found in (await stores.ask(lambda driver: _ids(driver, job_id))).items():
        for one in found:
            if await _show(stores, output, connection, one, decrypt=decrypt):
                return
    if await finished_jobs.shown(stores, output, job_id, decrypt=decrypt):
        return
    raise JobNotFound(f"there is no job {job_id}, live or failed: it has ended, was removed, or never was")


async def _ids(driver: Driver, typed: str) -> tuple[JobId, ...]:
    """Where all ids would have to be read, the failed jobs are looked at before that."""
    for nearby in (True, False):
        for find in (driver.jobs.find, driver.failed.find):
            if ids := (await look_up([typed], partial(find, nearby=nearby))).ids:
                return ids
    return ()


async def _show(stores: Stores, output: Output, connection: str, job_id: JobId, *, decrypt: bool) -> bool:
    async def read(
        driver: Driver,
    ) -> tuple[StoredJob | None, list[WorkerStatus], datetime, list[str]] | None:
        if driver.name != connection:
            return None
        job = await driver.jobs.get(job_id)
        told = await notes_on(driver, job, _class_of(job)) if job is not None else []
        told += await finished_jobs.progress_of(driver, job_id)
        return job, await driver.workers.all(), await driver.now(), told

    live = (await stores.ask(read)).get(connection)
    if live is not None and live[0] is not None:
        job, workers, now, told = live[0], live[1], live[2], live[3]
        if decrypt:
            job = decrypted_job(keyring(stores.settings.encryption_keys), connection, job)
        run = next(((worker, each) for worker in workers for each in worker.jobs if each.id == job_id), None)
        if output.as_json:
            output.document(stores.document(job=_document(connection, job, run, now) | {"policies": told}))
        else:
            output.print(_described(connection, job, run, now, told))
        return True

    failed = (await stores.ask(lambda driver: driver.failed.get(job_id))).get(connection)
    if failed is None:
        return False
    if decrypt:
        failed = decrypted_failed_job(keyring(stores.settings.encryption_keys), failed)
    if output.as_json:
        document = json_views.failed_job(failed)
        output.document(stores.document(job=document | {"state": "failed", "since": document["failed_at"]}))
    else:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(described_failure(failed, ago(failed.failed_at, now)))
    return True


def _class_of(job: StoredJob) -> type[Job] | None:
    """None where it cannot be imported."""
    with suppress(ConfigurationError, JobError):
        registry.import_jobs(current_settings().jobs)
        return registry.resolve(job.name)
    return None


Run = tuple[WorkerStatus, RunningJob]


def _since(job: StoredJob) -> datetime | None:
    """When the job entered its state. None if its row does not tell."""
    return {
        JobState.READY: job.available_at,
        JobState.DELAYED: job.created_at,
        JobState.RETRYING: job.last_error_at,
        JobState.RESERVED: None,
        JobState.PARKED: None,
    }[job.state]


def _document(connection: str, job: StoredJob, run: Run | None, now: datetime) -> json_views.Document:
    document = json_views.live_job(connection, job)
    document["since"] = json_views.timestamp(_since(job))
    parked = job.state is JobState.PARKED
    document["due_seconds"] = None if parked else round((job.available_at - now).total_seconds(), 3)
    document["worker"] = None
    if run is not None:
        worker, running = run
        document["worker"] = {
            "name": worker.name,
            "host": worker.host,
            "pid": worker.pid,
            "running_seconds": round(running.seconds + worker.seen, 3),
        }
    return document


def _described(connection: str, job: StoredJob, run: Run | None, now: datetime, told: Sequence[str]) -> str:
    since = _since(job)
    facts = {
        "job": job.name,
        "queue": f"{queue_name(job.queue)}, priority {job.priority}",
        "connection": connection,
        "state": job.state.value + ("" if since is None else f" since {_timestamp(since)}, {ago(since, now)}"),
        "attempts": str(job.attempts),
        "dispatched": f"{_timestamp(job.created_at)}, {ago(job.created_at, now)}",
    }
    if job.state is JobState.RESERVED and job.reserved_until is not None:
        facts["lease"] = f"until {_timestamp(job.reserved_until)}, {due(job.reserved_until, now)}"
        facts["worker"] = "not known yet: workers report their jobs with each heartbeat, every few seconds"
    elif job.state is not JobState.PARKED:
        facts["due"] = f"{_timestamp(job.available_at)}, {due(job.available_at, now)}"
    if run is not None:
        worker, running = run
        where = f"process {worker.pid} on {worker.host}"
        facts["worker"] = f"{worker.name}, {where}, running for {age(running.seconds + worker.seen)}"
    if job.last_error is not None and job.last_error_at is not None:
        facts["last error"] = f"{job.last_error} ({ago(job.last_error_at, now)})"
    if told:
        facts["policies"] = "\n".join(told)
    lines = [f"Job {job.id}", *(f"  {name:<11} {block(value)}" for name, value in facts.items())]
    lines += ["", "Payload", block(indented_payload(job.payload))]
    if job.headers.strip() not in {"", "{}"}:
        lines += ["", "Headers", block(indented_json(job.headers))]
    return "\n".join(lines)


def _timestamp(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
