"""``audit``: what operators did."""

from __future__ import annotations

import json
from uuid import UUID

import click

from outbox.console.command import looking_at_connection
from outbox.console.fitting_table import Column, FittingTable
from outbox.console.json_views import timestamp
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.errors import ConfigurationError
from outbox.ids import JobId


@click.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Entries per page.")
@click.option("--before", metavar="ID", type=click.UUID, help="Continue after a page, with its last id.")
@looking_at_connection
async def audit(driver: Driver, output: Output, limit: int, before: UUID | None) -> None:
    """List what operators did to a database in the last 90 days, the newest first: who, what, to which jobs, how many.

    Entries are written in the transactions of commands, of the dashboard, and of functions that are told `by=`.
    """
    if driver.audit is None:
        raise ConfigurationError(f"an audit log is kept by a database, not by the connection {driver.name}")
    found = await driver.audit.latest(limit, None if before is None else JobId(int=before.int))
    if output.as_json:
        entries = [
            {
                "id": str(entry.id),
                "at": timestamp(entry.at),
                "by": entry.by,
                "action": entry.action,
                "target": dict(entry.target),
                "count": entry.count,
            }
            for entry in found
        ]
        output.document({"connection": driver.name, "entries": entries})
        return
    if not found:
        output.print("No entries.")
        return
    table = FittingTable(
        [
            Column("At (UTC)", 0),
            Column("By", 1, whole=False),
            Column("Action", 0),
            Column("Number", 2, number=True),
            Column("Target", 3, whole=False),
        ]
    )
    for entry in found:
        target = ", ".join(f"{name} {_shown(value)}" for name, value in entry.target.items())
        table.add(f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.by, entry.action, f"{entry.count:,}", target)
    output.print(table)
    if len(found) == limit:
        output.note(f"there may be more: --before {found[-1].id}")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
