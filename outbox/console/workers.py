"""``workers``: which worker processes there are, and what they run."""

from __future__ import annotations

import click

from outbox.console import json_views, tables
from outbox.console.connections import Stores, on_connections
from outbox.console.output import Screen


@click.command()
@on_connections
async def workers(stores: Stores, screen: Screen) -> None:
    """List the worker processes, the longest running first, and what they run: at most 200 jobs of each.

    A worker is silent when it was not heard of for a minute.
    """
    answers = await stores.ask(lambda driver: driver.workers())
    statuses = [(name, status) for name, each in answers.items() for status in each]
    if screen.as_json:
        screen.document(stores.document(workers=[json_views.worker(*each) for each in statuses]))
    elif not statuses:
        screen.print("No workers.")
    else:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        screen.print(tables.workers(statuses, now, several=stores.several))
        running = tables.running_jobs(statuses, several=stores.several)
        if running is not None:
            screen.print("", running)
