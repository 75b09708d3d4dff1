"""``stats``, ``clear``, ``pause``, ``resume``, ``cancel``: live jobs and their queues."""

from __future__ import annotations

from collections.abc import Sequence

import click

from outbox.console import json_views, tables
from outbox.console.command import on_connection
from outbox.console.command import queue as queue_name
from outbox.console.connections import Stores, on_connections
from outbox.console.formatting import counted, line
from outbox.console.id_lookup import choose, confirm, yes_option
from outbox.console.output import Screen
from outbox.console.suggestions import unknown_queue
from outbox.drivers.base import Driver


@click.command()
@on_connections
async def stats(stores: Stores, screen: Screen) -> None:
    """Count the jobs of each queue."""
    answers = await stores.ask(lambda driver: driver.counts())
    counts = [(connection, queue) for connection, queues in answers.items() for queue in queues]
    if screen.as_json:
        screen.document(stores.document(queues=[json_views.queue(*each) for each in counts]))
    elif counts:
        screen.print(tables.queues(counts, several=stores.several))
    else:
        screen.print("No jobs.")


@click.command()
@click.argument("queue", type=queue_name)
@yes_option
@on_connection
async def clear(driver: Driver, screen: Screen, queue: str, yes: bool) -> None:
    """Remove all jobs of QUEUE that no worker holds, for good."""
    confirm(f"Remove the ready and delayed jobs of {queue}, connection {driver.name}, for good?", yes=yes)
    removed = await driver.clear(queue)
    if screen.as_json:
        screen.document({"connection": driver.name, "queue": queue, "removed": removed})
    else:
        screen.print(f"Removed {counted(removed, 'job')} from {queue}.")


@click.command()
@click.argument("queues", metavar="QUEUE...", type=queue_name, nargs=-1, required=True)
@on_connection
async def pause(driver: Driver, screen: Screen, queues: Sequence[str]) -> None:
    """Stop all workers from taking jobs of QUEUE. Running jobs go on; dispatching goes on."""
    unknown = [found for queue in dict.fromkeys(queues) if (found := await unknown_queue(Stores.of(driver), queue))]
    paused = [queue for queue in dict.fromkeys(queues) if await driver.pause(queue)]
    already = [queue for queue in dict.fromkeys(queues) if queue not in paused]
    if screen.as_json:
        screen.document({"connection": driver.name, "paused": paused, "already_paused": already})
    else:
        for queue in dict.fromkeys(queues):
            screen.print(f"{queue} is paused." if queue in paused else f"{queue} was paused already.")
    for problem in unknown:
        screen.note(problem)


@click.command()
@click.argument("queues", metavar="QUEUE...", type=queue_name, nargs=-1, required=True)
@on_connection
async def resume(driver: Driver, screen: Screen, queues: Sequence[str]) -> None:
    """Let workers take jobs of QUEUE again."""
    resumed = [queue for queue in dict.fromkeys(queues) if await driver.resume(queue)]
    running = [queue for queue in dict.fromkeys(queues) if queue not in resumed]
    if screen.as_json:
        screen.document({"connection": driver.name, "resumed": resumed, "not_paused": running})
        return
    for queue in dict.fromkeys(queues):
        screen.print(f"{queue} is resumed." if queue in resumed else f"{queue} was not paused.")


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@on_connection
async def cancel(driver: Driver, screen: Screen, job_ids: Sequence[str]) -> int:
    """Remove live jobs. One that is running is stopped when its worker next renews its lease."""
    chosen = await choose(job_ids, driver.find)
    cancelled = await driver.cancel(chosen.ids)
    missing = [*chosen.unknown, *(str(job_id) for job_id in chosen.ids if job_id not in set(cancelled))]
    if screen.as_json:
        ids = [str(job_id) for job_id in cancelled]
        screen.document({"connection": driver.name, "cancelled": len(ids), "job_ids": ids, "missing": missing})
    else:
        screen.print(f"Cancelled {counted(len(cancelled), 'job')}.")
    if missing:
        screen.note(f"outbox: no live job {', '.join(line(one) for one in missing)}: it ended, failed, or never was")
    return 1 if missing else 0
