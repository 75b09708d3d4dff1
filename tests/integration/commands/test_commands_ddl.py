"""`outbox ddl`: tables for applications that migrate without Alembic."""

from __future__ import annotations

from sqlalchemy import inspect

import outbox
from tests.servers import databases, sql
from tests.support.commands import run


async def test_its_statements_make_the_tables_of_the_metadata(database_url: str, backend: str) -> None:
    printed = await run(database_url, "ddl", backend)
    assert printed.code == 0
    with sql.connection(database_url) as connection:
        for statement in printed.out.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        made = describe(inspect(connection))
        outbox.metadata.drop_all(connection)
    databases.create_tables(database_url, outbox.metadata)
    with sql.connection(database_url) as connection:
        assert made == describe(inspect(connection))
    assert made.keys() == outbox.metadata.tables.keys()


def describe(inspector: object) -> dict[str, object]:
    return {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
            sorted((index["name"], tuple(index["column_names"])) for index in inspector.get_indexes(name)),
            inspector.get_pk_constraint(name)["constrained_columns"],
        )
        for name in inspector.get_table_names()
    }


async def test_an_unknown_server_is_refused_with_those_that_there_are(tmp_path: object) -> None:
    refused = await run("sqlite+aiosqlite://", "ddl", "postgresql")
    assert refused.code == 2
    assert "'mysql', 'mariadb', 'sqlite'" in refused.err
