"""Health of a database for `outbox check`: settings that weaken the guarantees, and tables that were altered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Inspector, Table, inspect
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.operations.outdated_tables import newer_tables
from outbox.drivers.database.tables import metadata
from outbox.drivers.values import HealthIssue

# One INSERT carries up to 7 million characters, which escaping can double.
_PACKET_BYTES = 16 * 1024 * 1024
_MIGRATE = "run `alembic upgrade head`"


async def health_issues(database: Database) -> list[HealthIssue]:
    async def look(connection: AsyncConnection) -> list[HealthIssue]:
        rows: Iterable[Any] = await connection.exec_driver_sql(database.dialect.settings)
        settings = {str(row[0]): str(row[1]) for row in rows}
        judge = sqlite_issues if connection.dialect.name == "sqlite" else innodb_issues
        return [*judge(settings), *await connection.run_sync(_tables)]

    return await database.read(look)


def innodb_issues(settings: Mapping[str, str]) -> Iterator[HealthIssue]:
    """MySQL and MariaDB, by what their manuals say of each setting."""
    logs = settings.get("log_bin") == "ON"
    if "ON" in {settings.get("read_only"), settings.get("super_read_only")}:
        yield HealthIssue("the server is read-only", "point the connection at the primary", serious=True)
    if logs and settings.get("binlog_format") == "STATEMENT":
        yield HealthIssue(
            "binlog_format is STATEMENT, under which InnoDB refuses every write at READ COMMITTED",
            "set binlog_format to ROW",
            serious=True,
        )
    flush = settings.get("innodb_flush_log_at_trx_commit", "1")
    if flush != "1":
        yield HealthIssue(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash can lose committed jobs, with the business data",
            "set it to 1",
        )
    sync = settings.get("sync_binlog", "1")
    if logs and sync != "1":
        yield HealthIssue(
            f"sync_binlog is {sync}: after a power failure, replicas and restored backups can lack committed jobs",
            "set it to 1",
        )
    packet = int(settings.get("max_allowed_packet", _PACKET_BYTES))
    if packet < _PACKET_BYTES:
        yield HealthIssue(
            f"max_allowed_packet is {packet:,} bytes: dispatching many or large jobs at once can be refused",
            f"set it to {_PACKET_BYTES:,} or more",
        )


def sqlite_issues(settings: Mapping[str, str]) -> Iterator[HealthIssue]:
    if not settings.get("file"):
        yield HealthIssue(
            "the database is in memory: no other process sees its jobs, and they end with this one",
            "give DATABASE_URL a file",
            serious=True,
        )
    elif settings.get("journal_mode") != "wal":
        yield HealthIssue(
            f"the journal mode is {settings.get('journal_mode')}, not wal: readers and the writer wait for each other",
            "keep the file on a local disk, and stop what holds it open in another mode",
        )


def _tables(connection: Connection) -> list[HealthIssue]:
    inspector = inspect(connection)
    made = [issue for table in metadata.sorted_tables for issue in _table(inspector, table)]
    return [*made, *newer_tables(connection)]


def _table(inspector: Inspector, table: Table) -> Iterator[HealthIssue]:
    present = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = [column.name for column in index.columns]
        if present.get(index.name) != columns:
            message = f"{table.name} lacks the index {index.name} on {', '.join(columns)}"
            yield HealthIssue(message, _MIGRATE, serious=True)
    engine = inspector.get_table_options(table.name).get("mysql_engine", "InnoDB")
    if engine != "InnoDB":
        yield HealthIssue(
            f"{table.name} is kept by {engine}, which has no transactions",
            f"ALTER TABLE {table.name} ENGINE=InnoDB",
            serious=True,
        )
