"""``failed``, ``retry``, ``forget``, ``flush``, ``prune``: what became of jobs that no attempt could finish."""

from __future__ import annotations

from collections.abc import Sequence

import click

from outbox.console import documents, tables
from outbox.console.choosing import choose, confirm, yes_option
from outbox.console.command import on_connection
from outbox.console.command import queue as queue_name
from outbox.console.readable import ago, block, counted, indented_json, line
from outbox.console.screen import Screen
from outbox.drivers.base import Driver, FailedJob
from outbox.errors import JobNotFound

_HOUR = 3_600.0
_WORKERS_UNSEEN = _HOUR
"""A worker that lives has been heard of many times in an hour, whatever its lease."""

hours_range = click.FloatRange(min=0, max=10 * 365 * 24)


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--queue", type=queue_name, help="Only this queue.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many, the latest first."
)
@on_connection
async def failed(driver: Driver, screen: Screen, job_id: str | None, queue: str | None, limit: int) -> int:
    """List failed jobs. With an ID: all of one, with its traceback, payload and headers."""
    if job_id is not None:
        return await _show_one(driver, screen, job_id)
    jobs = await driver.list_failed(queue, limit)
    if screen.as_json:
        screen.document({"connection": driver.name, "failed_jobs": [documents.failed_job(job) for job in jobs]})
        return 0
    if not jobs:
        screen.print("No failed jobs." if queue is None else f"No failed jobs in {queue}.")
        return 0
    screen.print(tables.failed_jobs(jobs, await driver.now()))
    if len(jobs) == limit:
        total = sum(counts.failed for counts in await driver.counts() if queue in {None, counts.queue})
        if total > limit:
            screen.note(f"{counted(total, 'failed job')} in all; --limit shows more")
    return 0


async def _show_one(driver: Driver, screen: Screen, typed: str) -> int:
    chosen = await choose([typed], driver.find_failed)
    job = await driver.get_failed(chosen.ids[0]) if chosen.ids else None
    if job is None:
        raise JobNotFound(f"no failed job {typed}: `outbox failed` lists those that there are")
    if screen.as_json:
        screen.document({"connection": driver.name, "failed_job": documents.failed_job(job)})
    else:
        screen.print(_described(job, ago(job.failed_at, await driver.now())))
    return 0


def _described(job: FailedJob, since: str) -> str:
    facts = {
        "job": job.name,
        "queue": f"{job.queue}, priority {job.priority}",
        "connection": job.connection,
        "attempts": str(job.attempts),
        "failed": f"{job.failed_at:%Y-%m-%d %H:%M:%S} UTC, {since}",
        "error": f"{job.failure.type}: {job.failure.message}",
    }
    texts = {
        "Payload": indented_json(job.payload),
        "Headers": "" if job.headers == "{}" else indented_json(job.headers),
    }
    lines = [f"Failed job {job.id}", *(f"  {name:<11} {block(value)}" for name, value in facts.items())]
    if job.failure.traceback:
        lines += ["", block(job.failure.traceback.rstrip("\n"))]
    for name, text in texts.items():
        if text.strip():
            lines += ["", name, block(text)]
    return "\n".join(lines)


@click.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed jobs.")
@click.option("--queue", type=queue_name, help="All failed jobs of this queue.")
@on_connection
async def retry(driver: Driver, screen: Screen, job_ids: Sequence[str], everything: bool, queue: str | None) -> int:
    """Put failed jobs back. They keep their ids, and no attempts are counted."""
    if bool(job_ids) == (everything or queue is not None):
        raise click.UsageError("give the ids of failed jobs, or --all, or --queue NAME")
    if not job_ids:
        return await _retry_all(driver, screen, queue)
    chosen = await choose(job_ids, driver.find_failed)
    retried = await driver.retry(chosen.ids)
    missing = [*chosen.unknown, *(str(job_id) for job_id in chosen.ids if job_id not in set(retried))]
    if screen.as_json:
        screen.document(
            {
                "connection": driver.name,
                "retried": len(retried),
                "job_ids": [str(job_id) for job_id in retried],
                "missing": missing,
                "skipped": [],
            }
        )
    else:
        screen.print(f"Retried {counted(len(retried), 'failed job')}.")
    return _report_missing(screen, missing)


async def _retry_all(driver: Driver, screen: Screen, queue: str | None) -> int:
    retried = await driver.retry_all(queue)
    skipped = await driver.unretryable(queue)
    if screen.as_json:
        screen.document(
            {
                "connection": driver.name,
                "retried": retried,
                "job_ids": None,
                "missing": [],
                "skipped": [str(job_id) for job_id in skipped],
            }
        )
    else:
        screen.print(f"Retried {counted(retried, 'failed job')}.")
    if skipped:
        ids = ", ".join(map(str, skipped))
        screen.note(f"Skipped {len(skipped)} whose payload or headers are not JSON; they stay failed: {ids}")
    return 0


def _report_missing(screen: Screen, missing: Sequence[str]) -> int:
    if missing:
        screen.note(f"outbox: no failed job {', '.join(line(one) for one in missing)}")
    return 1 if missing else 0


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@on_connection
async def forget(driver: Driver, screen: Screen, job_ids: Sequence[str]) -> int:
    """Remove failed jobs for good."""
    chosen = await choose(job_ids, driver.find_failed)
    forgotten = await driver.forget(chosen.ids)
    missing = [*chosen.unknown, *(str(job_id) for job_id in chosen.ids if job_id not in set(forgotten))]
    if screen.as_json:
        ids = [str(job_id) for job_id in forgotten]
        screen.document({"connection": driver.name, "forgotten": len(ids), "job_ids": ids, "missing": missing})
    else:
        screen.print(f"Forgot {counted(len(forgotten), 'failed job')}.")
    return _report_missing(screen, missing)


@click.command()
@click.option("--queue", type=queue_name, help="Only those of this queue.")
@click.option("--hours", type=hours_range, help="Only those that failed longer ago than this.")
@yes_option
@on_connection
async def flush(driver: Driver, screen: Screen, queue: str | None, hours: float | None, yes: bool) -> None:
    """Remove all failed jobs for good."""
    which = f"failed jobs of {queue}" if queue else "failed jobs"
    if hours is not None:
        which += f" that are older than {hours:g} hours"
    confirm(f"Remove all {which} of the connection {driver.name} for good?", yes=yes)
    removed = await driver.flush(queue, None if hours is None else hours * _HOUR)
    if screen.as_json:
        screen.document({"connection": driver.name, "removed": removed})
    else:
        screen.print(f"Removed {counted(removed, 'failed job')}.")


@click.command()
@click.option("--hours", type=hours_range, default=24, show_default=True, help="How long failed jobs are kept.")
@on_connection
async def prune(driver: Driver, screen: Screen, hours: float) -> None:
    """Remove old failed jobs. Also rows of workers not heard of for an hour. Made for cron: it does not ask."""
    removed = await driver.flush(older_than=hours * _HOUR)
    workers = await driver.forget_workers(_WORKERS_UNSEEN)
    if screen.as_json:
        screen.document({"connection": driver.name, "failed_jobs": removed, "workers": workers})
    else:
        screen.print(f"Removed {counted(removed, 'failed job')} and {counted(workers, 'silent worker')}.")
