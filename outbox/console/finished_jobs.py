"""Completed jobs that are kept: for ``jobs --state finished`` and ``show``."""

from __future__ import annotations

from uuid import UUID

import click

from outbox.console import json_views, tables
from outbox.console.connections import Stores
from outbox.console.decryption import decrypted_finished_job, indented_payload
from outbox.console.formatting import age, ago, block, due, queue_name
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.values import FinishedJob
from outbox.ids import JobId


async def listed(
    stores: Stores, output: Output, queue: str | None, name: str | None, limit: int, after: str | None
) -> None:
    """
    Raises:
        click.UsageError: ``after`` is given.
    """
    if after is not None:
        raise click.UsageError("--after does not go with --state finished: raise --limit")

    async def read(driver: Driver) -> list[FinishedJob]:
        return [] if driver.finished is None else await driver.finished.latest(queue, name, limit)

    found = [(connection, job) for connection, jobs in (await stores.ask(read)).items() for job in jobs]
    found.sort(key=lambda each: each[1].finished_at, reverse=True)
    if output.as_json:
        listed = [json_views.finished_job(*each) for each in found[:limit]]
        output.document(stores.document(jobs=listed, next=None))
    elif found:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(tables.finished_jobs(found[:limit], now, several=stores.several))
    else:
        output.print("No finished jobs are kept." if queue is None and name is None else "No such jobs.")


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
            job = decrypted_finished_job(stores.settings, connection, job)
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
