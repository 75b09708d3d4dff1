"""Completed jobs that are kept: for ``jobs --state finished`` and ``show``."""

from __future__ import annotations

from uuid import UUID

import click

from outbox.console import json_views, tables
from outbox.console.connections import Stores
from outbox.console.decryption import indented_payload
from outbox.console.formatting import age, ago, block, due, queue_name
from outbox.console.output import Output
from outbox.decrypted_jobs import decrypted_finished_job
from outbox.drivers.base import Driver
from outbox.drivers.filters import EXAMINED_PER_PAGE, FinishedPage, FinishedPlace
from outbox.drivers.values import FinishedJob
from outbox.encryption import keyring
from outbox.errors import InvalidOption
from outbox.ids import JobId


async def listed(
    stores: Stores, output: Output, queue: str | None, name: str | None, limit: int, after: str | None
) -> None:
    """
    Raises:
        click.UsageError: ``after`` is not a place that a page printed.
    """
    try:
        begin = None if after is None else FinishedPlace.parse(after)
    except InvalidOption as error:
        raise click.UsageError(f"--after: {error}") from error

    async def read(driver: Driver) -> FinishedPage:
        if driver.finished is None:
            return FinishedPage([], None)
        return await driver.finished.page(queue, name, limit, begin)

    found, place = _together(await stores.ask(read), limit)
    if output.as_json:
        listed = [json_views.finished_job(*each) for each in found]
        output.document(stores.document(jobs=listed, next=None if place is None else str(place)))
    elif found:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(tables.finished_jobs(found, now, several=stores.several))
    else:
        output.print("No finished jobs are kept." if queue is None and name is None else "No such jobs.")
    if place is not None:
        searched = "" if found else f"None of the {EXAMINED_PER_PAGE:,} jobs examined; "
        output.note(f"{searched}there are more: --after {place}")


def _together(pages: dict[str, FinishedPage], limit: int) -> tuple[list[tuple[str, FinishedJob]], FinishedPlace | None]:
    """The latest jobs of all connections, and the place where they go on. What lies behind the place up to which one
    connection was examined is for a later page."""
    examined = max((page.next for page in pages.values() if page.next is not None), default=None)
    found = [(connection, job) for connection, page in pages.items() for job in page.jobs]
    found = [each for each in found if examined is None or FinishedPlace.of(each[1]) >= examined]
    found.sort(key=lambda each: FinishedPlace.of(each[1]), reverse=True)
    return found[:limit], FinishedPlace.of(found[limit - 1][1]) if len(found) > limit else examined


async def shown(stores: Stores, output: Output, typed: str, *, decrypt: bool) -> bool:
    """Whether there is a finished job of this whole id."""
    try:
        job_id = JobId(str(UUID(typed)))
    except ValueError:
        return False

    async def read(driver: Driver) -> FinishedJob | None:
        return None if driver.finished is None else await driver.finished.get(job_id)

    for connection, job in (await stores.ask(read)).items():
        if job is None:
            continue
        if decrypt:
            job = decrypted_finished_job(keyring(stores.settings.encryption_keys), connection, job)
        if output.as_json:
            output.document(stores.document(job=json_views.finished_job(connection, job)))
        else:
            now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
            output.print(_described(connection, job, ago(job.finished_at, now), due(job.kept_until, now)))
        return True
    return False


async def progress_of(driver: Driver, job_id: JobId) -> list[str]:
    """A line of what a live job has said of its progress, or none."""
    said = None if driver.finished is None else await driver.finished.progress(job_id)
    return [] if said is None else [f"progress {_progress(said.fraction, said.text)}"]


def _progress(fraction: float, text: str | None) -> str:
    return f"{fraction:.0%}" + (f", {block(text)}" if text else "")


def _described(connection: str, job: FinishedJob, finished: str, kept: str) -> str:
    facts = {
        "job": job.name,
        "queue": f"{queue_name(job.queue)}, priority {job.priority}",
        "connection": connection,
        "state": f"finished {finished}, after {age(job.seconds)}",
        "attempts": str(job.attempts),
        "kept": f"{job.kept_until:%Y-%m-%d %H:%M:%S} UTC, {kept}",
    }
    if job.progress is not None:
        facts["progress"] = _progress(job.progress, job.progress_text)
    lines = [f"Job {job.id}", *(f"  {name:<11} {block(value)}" for name, value in facts.items())]
    lines += ["", "Result", block(indented_payload(job.result)), "", "Payload", block(indented_payload(job.payload))]
    return "\n".join(lines)
