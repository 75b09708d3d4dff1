"""Tables that are older or newer than the code, and how to get on."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.versions import LATEST, TableState, listed
from outbox.drivers.values import HealthIssue
from outbox.errors import OutboxError, TablesMissing


async def explained(database: Database, error: TablesMissing) -> TablesMissing:
    """``error`` with the version of the tables, and what they lack; ``error`` itself where that cannot be read."""

    async def read(connection: AsyncConnection) -> tuple[TableState, str]:
        return await connection.run_sync(TableState.read), connection.dialect.name

    try:
        state, server = await database.read(read)
    except OutboxError:
        return error
    if not state.found:
        return error
    return TablesMissing(
        f"{database.address} has tables of another version: run `alembic upgrade head`. The tables are of version "
        f"{state.version} and lack {listed(state.missing)}. This release of outbox needs version {LATEST}: "
        f"outbox.migrations.upgrade(op, version={LATEST}) in a revision of yours"
        + (f", or `outbox ddl {server} --from {state.version}`" if state.version else "")
    )


def newer_tables(connection: Connection) -> Iterator[HealthIssue]:
    if unknown := TableState.read(connection, rows=False).unknown:
        yield HealthIssue(
            f"the tables are newer than this release of outbox, which does not know {listed(unknown)}",
            "jobs run all the same; finish the deploy of the release that upgraded the tables",
        )
