"""``workers``: which worker processes there are."""

from __future__ import annotations

import click

from outbox.console import documents, tables
from outbox.console.command import on_connection
from outbox.console.screen import Screen
from outbox.drivers.base import Driver


@click.command()
@on_connection
async def workers(driver: Driver, screen: Screen) -> None:
    """List the worker processes, the longest running first. One is silent when it was not heard of for a minute."""
    statuses = await driver.workers()
    if screen.as_json:
        screen.document({"connection": driver.name, "workers": [documents.worker(status) for status in statuses]})
    elif statuses:
        screen.print(tables.workers(statuses, await driver.now()))
    else:
        screen.print("No workers.")
