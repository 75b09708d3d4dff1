"""``failed``, ``retry``, ``forget``, ``flush``, ``prune``: failed jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import click

from outbox.console import json_views, tables
from outbox.console.command import Finite, on_connection
from outbox.console.command import queue as queue_name
from outbox.console.confirmation import confirm, yes_option
from outbox.console.connections import Stores, on_connections
from outbox.console.decryption import decrypt_option, indented_payload
from outbox.console.failed_options import filter_options, which_failed
from outbox.console.formatting import ago, block, counted, indented_json, line
from outbox.console.formatting import queue_name as readable_queue
from outbox.console.id_lookup import look_up
from outbox.console.output import Output
from outbox.console.suggestions import unknown_name, unknown_queue
from outbox.console.tracebacks import without_own_frames
from outbox.decrypted_jobs import decrypted_failed_job
from outbox.drivers.base import Driver
from outbox.drivers.filters import FailedFilter
from outbox.drivers.values import FailedJob
from outbox.encryption import keyring
from outbox.errors import JobNotFound
from outbox.ids import JobId
from outbox.job_changes import retry_all_jobs, retry_jobs

_HOUR = 3_600.0
_WORKERS_UNSEEN = _HOUR
"""A live worker writes many heartbeats in an hour, whatever its lease."""

_OPTIONS = "--queue, --name, --error, --group and --since"

hours_range = Finite(min=0, max=10 * 365 * 24)


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--queue", type=queue_name, help="Only this queue.")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="Rows, the latest first.",
)
@click.option("--groups", is_flag=True, help="Count by job and problem, with the first and the last failure.")
@click.option("--full", is_flag=True, help="With an ID: outbox's own frames in the traceback as well.")
@decrypt_option
@on_connections
async def failed(
    stores: Stores,
    output: Output,
    job_id: str | None,
    queue: str | None,
    matching: FailedFilter,
    limit: int,
    groups: bool,
    full: bool,
    decrypt: bool,
) -> int:
    """List failed jobs. With an ID: all details of one job, with its traceback, payload and headers."""
    if job_id is not None:
        return await _show_one(stores, output, job_id, full=full, decrypt=decrypt)
    if groups:
        return await _show_groups(stores, output, queue, matching, limit)
    answers = await stores.ask(lambda driver: driver.failed.page(queue, limit, matching=matching))
    jobs = sorted((job for each in answers.values() for job in each), key=_latest, reverse=True)[:limit]
    if output.as_json:
        output.document(stores.document(failed_jobs=[json_views.failed_job(job) for job in jobs]))
    elif jobs:
        output.print(tables.failed_jobs(jobs, await _now(stores), several=stores.several))
    if not jobs:
        await _report_none(stores, output, queue, matching)
    if len(jobs) == limit and not output.as_json and matching.is_any:
        counts = await stores.ask(lambda driver: driver.queues.counts())
        total = sum(each.failed for found in counts.values() for each in found if queue in {None, each.queue})
        if total > limit:
            output.note(f"{counted(total, 'failed job')} in all; --limit shows more")
    return 0


def _latest(job: FailedJob) -> tuple[datetime, JobId]:
    return job.failed_at, job.id


async def _now(stores: Stores) -> datetime:
    return next(iter((await stores.ask(lambda driver: driver.now())).values()))


async def _report_none(stores: Stores, output: Output, queue: str | None, matching: FailedFilter) -> None:
    if not output.as_json:
        everything = "No failed jobs." if queue is None else f"No failed jobs in {queue}."
        output.print(everything if matching.is_any else "No such failed jobs.")
    await note_misspelt(stores, output, queue, matching)


async def note_misspelt(stores: Stores, output: Output, queue: str | None, matching: FailedFilter) -> None:
    """Report a name or a queue that no job has."""
    for problem in (await unknown_name(stores, matching.name), await unknown_queue(stores, queue)):
        if problem is not None:
            output.note(problem)


async def _show_groups(stores: Stores, output: Output, queue: str | None, matching: FailedFilter, limit: int) -> int:
    answers = await stores.ask(lambda driver: driver.failed.groups(queue, limit, matching=matching))
    groups = sorted((group for each in answers.values() for group in each), key=lambda group: -group.count)[:limit]
    if output.as_json:
        output.document(stores.document(groups=[json_views.failed_group(group) for group in groups]))
    elif groups:
        output.print(tables.failed_groups(groups, await _now(stores), several=stores.several))
    if not groups:
        await _report_none(stores, output, queue, matching)
    return 0


async def _show_one(stores: Stores, output: Output, typed: str, *, full: bool, decrypt: bool) -> int:
    async def find(driver: Driver) -> FailedJob | None:
        chosen = await look_up([typed], driver.failed.find)
        return await driver.failed.get(chosen.ids[0]) if chosen.ids else None

    job = next((job for job in (await stores.ask(find)).values() if job is not None), None)
    if job is None:
        raise JobNotFound(f"no failed job {typed}: `outbox failed` lists failed jobs")
    if decrypt:
        job = decrypted_failed_job(keyring(stores.settings.encryption_keys), job)
    if output.as_json:
        output.document(stores.document(failed_job=json_views.failed_job(job)))
    else:
        output.print(described_failure(job, ago(job.failed_at, await _now(stores)), full=full))
    return 0


def described_failure(job: FailedJob, since: str, *, full: bool = False) -> str:
    """All details of a failed job. Unless ``full``, its traceback omits the frames of outbox."""
    facts = {
        "job": job.name,
        "queue": f"{readable_queue(job.queue)}, priority {job.priority}",
        "connection": job.connection,
        "attempts": str(job.attempts),
        "failed": f"{job.failed_at:%Y-%m-%d %H:%M:%S} UTC, {since}",
        "error": f"{job.failure.type}: {job.failure.message}",
    }
    texts = {
        "Payload": indented_payload(job.payload),
        "Headers": "" if job.headers == "{}" else indented_json(job.headers),
    }
    lines = [f"Failed job {job.id}", *(f"  {name:<11} {block(value)}" for name, value in facts.items())]
    trace = "" if job.failure.encrypted else job.failure.traceback
    traceback, hidden = (trace, 0) if full else without_own_frames(trace)
    if traceback:
        lines += ["", block(traceback.rstrip("\n"))]
    if hidden:
        lines.append(f"({counted(hidden, 'frame')} of outbox left out: `outbox failed {job.id} --full` shows them)")
    for name, text in texts.items():
        if text.strip():
            lines += ["", name, block(text)]
    return "\n".join(lines)


@click.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed jobs.")
@click.option("--queue", type=queue_name, help="All failed jobs of this queue.")
@filter_options
@on_connection
async def retry(
    driver: Driver,
    output: Output,
    job_ids: Sequence[str],
    everything: bool,
    queue: str | None,
    matching: FailedFilter,
) -> int:
    """Put failed jobs back. They keep their ids, and no attempts are counted."""
    _check_choice(job_ids, everything or queue is not None or not matching.is_any)
    if not job_ids:
        return await _retry_all(driver, output, queue, matching)
    chosen = await look_up(job_ids, driver.failed.find)
    retried = await retry_jobs(driver, chosen.ids)
    missing = chosen.missing(retried)
    document = {
        "connection": driver.name,
        "retried": len(retried),
        "job_ids": [str(job_id) for job_id in retried],
        "missing": missing,
        "skipped": [],
    }
    output.result(document, f"Retried {counted(len(retried), 'failed job')}.")
    return _report_missing(output, missing)


def _check_choice(job_ids: Sequence[str], chosen: bool) -> None:
    if bool(job_ids) == chosen:
        raise click.UsageError(
            "give the ids of failed jobs, or --all, or any of --queue, --name, --error, --group and --since"
        )


async def _retry_all(driver: Driver, output: Output, queue: str | None, matching: FailedFilter) -> int:
    retried = await retry_all_jobs(driver, queue, matching)
    skipped = await driver.failed.unretryable(queue, matching=matching)
    document = {
        "connection": driver.name,
        "retried": retried,
        "job_ids": None,
        "missing": [],
        "skipped": [str(job_id) for job_id in skipped],
    }
    output.result(document, f"Retried {counted(retried, 'failed job')}.")
    if skipped:
        ids = ", ".join(map(str, skipped))
        output.note(f"Skipped {len(skipped)} whose payload or headers are not JSON; they stay failed: {ids}")
    if not retried:
        await note_misspelt(Stores.of(driver), output, queue, matching)
    return 0


def _report_missing(output: Output, missing: Sequence[str]) -> int:
    if missing:
        output.note(f"outbox: no failed job {', '.join(line(one) for one in missing)}")
    return 1 if missing else 0


@click.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--queue", type=queue_name, help="All failed jobs of this queue.")
@filter_options
@yes_option
@on_connection
async def forget(
    driver: Driver, output: Output, job_ids: Sequence[str], queue: str | None, matching: FailedFilter, yes: bool
) -> int:
    """Remove failed jobs for good, by id, queue, name, error, group or time. It asks, unless ids are given."""
    if bool(job_ids) == (queue is not None or not matching.is_any):
        raise click.UsageError(f"give the ids of failed jobs, or any of {_OPTIONS}")
    if not job_ids:
        return await _forget_all(driver, output, queue, matching, yes=yes)
    chosen = await look_up(job_ids, driver.failed.find)
    forgotten = await driver.failed.forget(chosen.ids)
    missing = chosen.missing(forgotten)
    ids = [str(job_id) for job_id in forgotten]
    document = {"connection": driver.name, "forgotten": len(ids), "job_ids": ids, "missing": missing}
    output.result(document, f"Forgot {counted(len(ids), 'failed job')}.")
    return _report_missing(output, missing)


async def _forget_all(driver: Driver, output: Output, queue: str | None, matching: FailedFilter, *, yes: bool) -> int:
    confirm(f"Remove all {which_failed(queue, matching)} of the connection {driver.name} for good?", yes=yes)
    forgotten = await driver.failed.flush(queue, matching=matching)
    document = {"connection": driver.name, "forgotten": forgotten, "job_ids": None, "missing": []}
    output.result(document, f"Forgot {counted(forgotten, 'failed job')}.")
    if not forgotten:
        await note_misspelt(Stores.of(driver), output, queue, matching)
    return 0


@click.command()
@click.option("--queue", type=queue_name, help="Only this queue.")
@filter_options
@click.option("--hours", type=hours_range, help="Only jobs that failed longer ago than this.")
@yes_option
@on_connection
async def flush(
    driver: Driver, output: Output, queue: str | None, matching: FailedFilter, hours: float | None, yes: bool
) -> None:
    """Remove failed jobs for good: all, or those that the options select."""
    which = which_failed(queue, matching)
    if hours is not None:
        which += f" that are older than {hours:g} {'hour' if hours == 1 else 'hours'}"
    confirm(f"Remove all {which} of the connection {driver.name} for good?", yes=yes)
    removed = await driver.failed.flush(queue, None if hours is None else hours * _HOUR, matching=matching)
    output.result({"connection": driver.name, "removed": removed}, f"Removed {counted(removed, 'failed job')}.")
    if not removed:
        await note_misspelt(Stores.of(driver), output, queue, matching)


@click.command()
@click.option("--hours", type=hours_range, default=24, show_default=True, help="How long failed jobs are kept.")
@on_connection
async def prune(driver: Driver, output: Output, hours: float) -> None:
    """Remove old failed jobs, rows of workers without a heartbeat for an hour, and what is kept for a time only.

    That are finished jobs, received messages and entries of the audit log. Made for cron: it does not ask.
    """
    removed = await driver.failed.flush(older_than=hours * _HOUR)
    workers = await driver.workers.forget(_WORKERS_UNSEEN)
    messages = 0 if driver.inbox is None else await driver.inbox.prune()
    lines = [f"Removed {counted(removed, 'failed job')} and {counted(workers, 'silent worker')}."]
    finished = 0 if driver.finished is None else await driver.finished.prune()
    if finished:
        lines.append(f"Forgot {counted(finished, 'finished job')}.")
    if messages:
        lines.append(f"Forgot {counted(messages, 'received message')}.")
    entries = 0 if driver.audit is None else await driver.audit.prune()
    if entries:
        lines.append(f"Forgot {entries:,} {'entry' if entries == 1 else 'entries'} of the audit log.")
    document = {"failed_jobs": removed, "workers": workers, "messages": messages, "finished_jobs": finished}
    document["audit_entries"] = entries
    output.result({"connection": driver.name} | document, "\n".join(lines))
