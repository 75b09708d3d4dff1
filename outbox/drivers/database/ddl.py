"""The statements that make, change and drop the tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Dialect, MetaData, Table, make_url
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex, DropTable, ExecutableDDLElement

from outbox.drivers.database.tables import SEEDS
from outbox.drivers.database.versions import (
    LATEST,
    Element,
    Kind,
    added_columns,
    columns_of,
    elements_of,
    indexes_of,
    listed,
    tables_of,
)
from outbox.errors import MigrationError

SERVERS = ("mysql", "mariadb", "sqlite")
_INSTANT, _IN_PLACE = "ALGORITHM=INSTANT", "ALGORITHM=INPLACE, LOCK=NONE"
"""A server that can keep neither refuses. It never copies a table, and never locks it while it changes it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A statement without a semicolon, and another one for servers that cannot change this table instantly."""

    statement: str
    in_place: str = ""


def create_statements(server: str, from_version: int = 0) -> Iterator[str]:
    """Each statement that brings the tables from ``from_version`` to `LATEST` on ``server``, one of `SERVERS`.

    Raises:
        MigrationError: there is no such version.
    """
    check_version(from_version, lowest=0)
    dialect = make_url(f"{server}://").get_dialect()()
    for change in upgrade_changes(dialect, elements_of(from_version), LATEST):
        yield change.statement


def check_version(version: int, *, lowest: int) -> None:
    """
    Raises:
        MigrationError: the code has no such version.
    """
    if not lowest <= version <= LATEST:
        raise MigrationError(
            f"outbox's tables have no version {version}: this release of outbox has the versions {lowest} to {LATEST}. "
            "For a higher one, install the release that has it"
        )


def upgrade_changes(dialect: Dialect, found: Collection[Element], version: int) -> Iterator[Change]:
    """What adds the elements of ``version`` that are not in ``found``.

    Raises:
        MigrationError: a table of this name is not outbox's.
    """
    missing = elements_of(version) - set(found)
    for table in tables_of(version):
        if Element(table.name, Kind.TABLE, table.name) in missing:
            yield from _create(dialect, table, version)
            yield from _seed(table, missing)
            continue
        columns = [each for each in table.columns if Element(table.name, Kind.COLUMN, each.name) in missing]
        if foreign := {column.name for column in columns} - added_columns(table):
            lacks = listed(Element(table.name, Kind.COLUMN, name) for name in foreign)
            raise MigrationError(f"there is a table {table.name} that outbox did not make: it lacks {lacks}")
        yield from _add_columns(dialect, table, columns)
        for index in indexes_of(table, version):
            if Element(table.name, Kind.INDEX, str(index.name)) in missing:
                in_place = "" if dialect.name == "sqlite" else f" {_IN_PLACE.replace(',', '')}"
                yield Change(f"{_text(dialect, CreateIndex(index))}{in_place}")
        yield from _seed(table, missing)


def _seed(table: Table, missing: Collection[Element]) -> Iterator[Change]:
    if Element(table.name, Kind.ROWS, table.name) in missing:
        yield Change(SEEDS[table.name])


def downgrade_changes(dialect: Dialect, found: Collection[Element], version: int) -> Iterator[Change]:
    """What removes the elements of ``found`` that are not in ``version``, where outbox knows them."""
    surplus = set(found) & elements_of(LATEST) - elements_of(version)
    for table in reversed(tables_of(LATEST)):
        if Element(table.name, Kind.TABLE, table.name) in surplus:
            yield Change(_text(dialect, DropTable(table)))
        else:
            for index in indexes_of(table, LATEST):
                if Element(table.name, Kind.INDEX, str(index.name)) in surplus:
                    yield Change(_text(dialect, DropIndex(index)))
            columns = [each for each in table.columns if Element(table.name, Kind.COLUMN, each.name) in surplus]
            yield from _alter(dialect, table, [f"DROP COLUMN {each.name}" for each in reversed(columns)])


def _create(dialect: Dialect, table: Table, version: int) -> Iterator[Change]:
    kept = {column.name for column in columns_of(table, version)}
    made = table.to_metadata(MetaData())
    for column in made.columns:
        # What SQLAlchemy leaves out of CREATE TABLE.
        column.system = column.name not in kept
    yield Change(_text(dialect, CreateTable(made)))
    for index in indexes_of(table, version):
        yield Change(_text(dialect, CreateIndex(index)))


def _add_columns(dialect: Dialect, table: Table, columns: list[Column[Any]]) -> Iterator[Change]:
    compiler = dialect.ddl_compiler(dialect, CreateTable(table))
    return _alter(dialect, table, [f"ADD COLUMN {compiler.get_column_specification(each)}" for each in columns])


def _alter(dialect: Dialect, table: Table, parts: list[str]) -> Iterator[Change]:
    """One statement, so that it waits once for the transactions that are open on the table. SQLite takes one part."""
    if dialect.name == "sqlite":
        yield from (Change(f"ALTER TABLE {table.name} {part}") for part in parts)
    elif parts:
        together = f"ALTER TABLE {table.name} {', '.join(parts)}"
        yield Change(f"{together}, {_INSTANT}", in_place=f"{together}, {_IN_PLACE}")


def _text(dialect: Dialect, element: ExecutableDDLElement) -> str:
    lines = str(element.compile(dialect=dialect)).strip().expandtabs(4).splitlines()
    return "\n".join(line.rstrip() for line in lines)
