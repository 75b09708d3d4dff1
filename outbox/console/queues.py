"""``stats``, ``clear``, ``cancel``: live jobs and their queues."""

from __future__ import annotations

from collections.abc import Sequence

import click

from outbox.console import json_views, tables
from outbox.console.command import on_connection
from outbox.console.command import queue as queue_name
from outbox.console.confirmation import confirm, yes_option
from outbox.console.connections import Stores, on_connections
from outbox.console.formatting import counted, line
from outbox.console.id_lookup import look_up
from outbox.console.output import Output
from outbox.console.snapshot import all_pauses
from outbox.drivers.base import Driver
from outbox.job_changes import cancel_jobs


@click.command()
@on_connections
async def stats(stores: Stores, output: Output) -> None:
    """Count the jobs of each queue."""
    answers = await stores.ask(lambda driver: driver.queues.counts())
    counts = [(connection, queue) for connection, queues in answers.items() for queue in queues]
    pauses = await all_pauses(stores)
    if output.as_json:
        queues = [json_views.queue(*each) for each in counts]
        output.document(stores.document(queues=queues, pauses=[json_views.pause(*each) for each in pauses]))
        return
    output.print(tables.queues(counts, several=stores.several) if counts else "No jobs.")
    for text in tables.pauses(pauses, several=stores.several):
        output.print(text)


@click.command()
@click.argument("queue", type=queue_name)
@yes_option
@on_connection
async def clear(driver: Driver, output: Output, queue: str, yes: bool) -> None:
    """Remove all jobs of QUEUE for good, except those that are reserved by a worker."""
    confirm(f"Remove the ready and delayed jobs of {queue}, connection {driver.name}, for good?", yes=yes)
    removed = await driver.queues.clear(queue)
    document = {"connection": driver.name, "queue": queue, "removed": removed}
    output.result(document, f"Removed {counted(removed, 'job')} from {queue}.")


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@on_connection
async def cancel(driver: Driver, output: Output, job_ids: Sequence[str]) -> int:
    """Remove live jobs. A running job is stopped within a second, and is no failure."""
    chosen = await look_up(job_ids, driver.jobs.find)
    cancelled = await cancel_jobs(driver, chosen.ids)
    missing = chosen.missing(cancelled)
    ids = [str(job_id) for job_id in cancelled]
    document = {"connection": driver.name, "cancelled": len(ids), "job_ids": ids, "missing": missing}
    output.result(document, f"Cancelled {counted(len(ids), 'job')}.")
    if missing:
        those = ", ".join(line(one) for one in missing)
        output.note(f"outbox: too late, there is no live job {those}: it ended, failed, or never was")
    return 1 if missing else 0
