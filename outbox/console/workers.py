"""``workers``: the worker processes and their running jobs."""

from __future__ import annotations

import click

from outbox.console import json_views, tables
from outbox.console.connections import Stores, on_connections
from outbox.console.output import Output


@click.command()
@on_connections
async def workers(stores: Stores, output: Output) -> None:
    """List the worker processes, the oldest first, and at most 200 running jobs of each.

    A worker is silent after a minute without a heartbeat.
    """
    answers = await stores.ask(lambda driver: driver.workers.all())
    statuses = [(name, status) for name, each in answers.items() for status in each]
    if output.as_json:
        output.document(stores.document(workers=[json_views.worker(*each) for each in statuses]))
    elif not statuses:
        output.print("No workers.")
    else:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(tables.workers(statuses, now, several=stores.several))
        running = tables.running_jobs(statuses, several=stores.several)
        if running is not None:
            output.print("", running)
