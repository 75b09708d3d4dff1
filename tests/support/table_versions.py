"""What tests of migrations do with tables: migrate them, describe them, put rows into them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from outbox import migrations
from tests.servers import sql

# The number under which InnoDB keeps a table: another one after a copy.
_TABLE_IDS = {
    "mysql": "SELECT TABLE_ID FROM information_schema.INNODB_TABLES WHERE NAME = :name",
    "mariadb": "SELECT TABLE_ID FROM information_schema.INNODB_SYS_TABLES WHERE NAME = :name",
}


@contextmanager
def operations(url: str) -> Iterator[Operations]:
    """Alembic's ``op`` of a revision that runs on the database."""
    with sql.connection(url) as connection:
        yield operations_on(connection)


def operations_on(connection: Connection) -> Operations:
    return Operations(MigrationContext.configure(connection))


def scripted(backend: str) -> tuple[Operations, io.StringIO]:
    """The same without a connection, and what it prints."""
    printed = io.StringIO()
    name = "sqlite" if backend == "sqlite" else "mysql"
    context = MigrationContext.configure(dialect_name=name, opts={"as_sql": True, "output_buffer": printed})
    return Operations(context), printed


def version(url: str) -> int:
    with sql.connection(url) as connection:
        return migrations.version_of(connection)


def execute(url: str, statement: str) -> None:
    with sql.connection(url) as connection:
        connection.execute(text(statement))


def describe(url: str) -> dict[str, object]:
    """Every table, with all that its makers may differ in."""
    with sql.connection(url) as connection:
        inspector = inspect(connection)
        return {
            name: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
                sorted((str(index["name"]), tuple(index["column_names"])) for index in inspector.get_indexes(name)),
                inspector.get_pk_constraint(name)["constrained_columns"],
            )
            for name in inspector.get_table_names()
        }


def table_id(connection: Connection, backend: str, table: str = "queue_jobs") -> int:
    schema = connection.scalar(text("SELECT DATABASE()"))
    found = connection.scalar(text(_TABLE_IDS[backend]), {"name": f"{schema}/{table}"})
    assert found
    return int(found)


def add_job(url: str, last_error: str | None = None) -> None:
    """A row as a release with tables of any version writes it."""
    columns = {
        "id": "0123456789abcdef", "queue": "mail", "name": "shop.Receipt", "priority": 5, "payload": "{}",
        "headers": "{}", "attempts": 0, "available_at": "2026-01-01 00:00:00", "created_at": "2026-01-01 00:00:00",
    }  # fmt: skip
    if last_error is not None:
        columns["last_error"] = last_error
    with sql.connection(url) as connection:
        names = ", ".join(columns)
        connection.execute(text(f"INSERT INTO queue_jobs ({names}) VALUES (:{names.replace(', ', ', :')})"), columns)
