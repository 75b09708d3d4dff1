"""``ddl``: the statements that make and upgrade outbox's tables."""

from __future__ import annotations

import click

from outbox.drivers.database.ddl import SERVERS, create_statements
from outbox.errors import MigrationError


@click.command()
@click.argument("server", type=click.Choice(SERVERS))
@click.option(
    "--from",
    "from_version",
    type=int,
    default=0,
    metavar="VERSION",
    help="Upgrade tables of this version, as `outbox check` names it. Default: make all tables.",
)
def ddl(server: str, from_version: int) -> None:
    """Print the statements that make outbox's tables, for applications that migrate without Alembic.

    SERVER is mysql, mariadb or sqlite. Nothing is connected to: `outbox ddl mysql | mysql shop` makes the tables, and
    `outbox ddl mysql --from 1 | mysql shop` upgrades them.
    """
    try:
        statements = list(create_statements(server, from_version))
    except MigrationError as error:
        raise click.UsageError(str(error)) from error
    for statement in statements:
        click.echo(f"{statement};\n")
