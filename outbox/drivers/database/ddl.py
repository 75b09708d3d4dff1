"""The statements that make the tables, for applications that migrate without Alembic."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import make_url
from sqlalchemy.schema import CreateIndex, CreateTable

from outbox.drivers.database.tables import metadata

SERVERS = ("mysql", "mariadb", "sqlite")


def create_statements(server: str) -> Iterator[str]:
    """Each statement that makes a table or an index of outbox on ``server``, one of `SERVERS`, without a semicolon."""
    dialect = make_url(f"{server}://").get_dialect()()
    for table in metadata.sorted_tables:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        elements: list[CreateTable | CreateIndex] = [CreateTable(table), *map(CreateIndex, indexes)]
        for element in elements:
            lines = str(element.compile(dialect=dialect)).strip().expandtabs(4).splitlines()
            yield "\n".join(line.rstrip() for line in lines)
