"""``ddl``: the statements that make outbox's tables."""

from __future__ import annotations

import click

from outbox.drivers.database.ddl import SERVERS, create_statements


@click.command()
@click.argument("server", type=click.Choice(SERVERS))
def ddl(server: str) -> None:
    """Print the statements that make outbox's tables, for applications that migrate without Alembic.

    SERVER is mysql, mariadb or sqlite. Nothing is connected to: `outbox ddl mysql | mysql shop` makes the tables.
    """
    for statement in create_statements(server):
        click.echo(f"{statement};\n")
