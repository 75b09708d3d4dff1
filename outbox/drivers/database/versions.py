"""The versions of outbox's tables: what each one adds, and which of it a database has.

Tables, columns and indexes are elements. An upgrade makes the elements that are missing, so it can be interrupted
anywhere and run again. No record of a version is kept: tables that an application made by autogenerate have one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Index, Table, func, inspect, select

from outbox.drivers.database.tables import metadata
from outbox.policies.slots import SLOTS


@dataclass(frozen=True, slots=True)
class Version:
    """Tables that a version adds, with their columns and indexes, and columns that it adds to tables of before.

    `tables` defines them. A version that was released never changes. New columns are nullable and the last ones of
    their table, so that servers add them instantly. An index on one of them is made while others read and write; live
    jobs get none. Each version after the first adds a column to a table that was there before: older code recognises
    newer tables by it.
    """

    tables: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    """Tables that are made with rows, and how many: `tables.SEEDS` has the INSERT."""


VERSIONS = (
    Version(tables=("queue_failed_jobs", "queue_jobs", "queue_pauses", "queue_workers")),
    Version(columns={"queue_jobs": ("last_error", "last_error_at"), "queue_workers": ("running_jobs",)}),
    Version(
        tables=(
            "queue_batch_additions",
            "queue_batch_failures",
            "queue_batch_members",
            "queue_batches",
            "queue_finished_jobs",
            "queue_inbox",
            "queue_inbox_slots",
            "queue_key_slots",
            "queue_keyed_jobs",
            "queue_limits",
            "queue_lock_slots",
            "queue_metrics",
            "queue_progress",
            "queue_rate_slots",
            "queue_rate_waits",
            "queue_rates",
            "queue_schedule_ticks",
            "queue_schedules",
            "queue_unique",
            "queue_unique_jobs",
            "queue_unique_running",
        ),
        columns={"queue_jobs": ("policies",), "queue_failed_jobs": ("policies",)},
        rows=dict.fromkeys(("queue_inbox_slots", "queue_key_slots", "queue_lock_slots", "queue_rate_slots"), SLOTS),
    ),
    Version(
        tables=("queue_audit", "queue_breakers", "queue_job_pauses", "queue_operations", "queue_paused_jobs"),
        columns={
            "queue_failed_jobs": ("fingerprint",),
            "queue_pauses": ("reason", "paused_until", "paused_by"),
            "queue_workers": ("ordered", "state", "memory", "version"),
        },
    ),
)
LATEST = len(VERSIONS)


class Kind(StrEnum):
    TABLE = "table"
    COLUMN = "column"
    INDEX = "index"
    ROWS = "rows"
    """The rows that the table is made with, all of them."""


_OPTIONAL = {Kind.INDEX, Kind.ROWS}
"""What tables of a version may lack: an application may have made them by autogenerate."""


class Element(NamedTuple):
    table: str
    kind: Kind
    name: str


def tables_of(version: int) -> list[Table]:
    """The tables that there are in ``version``, by name."""
    names = {name for each in VERSIONS[:version] for name in each.tables}
    return [table for table in metadata.sorted_tables if table.name in names]


def columns_of(table: Table, version: int) -> list[Column[Any]]:
    """The columns that ``table`` has in ``version``."""
    later = {name for each in VERSIONS[version:] for name in each.columns.get(table.name, ())}
    return [column for column in table.columns if column.name not in later]


def indexes_of(table: Table, version: int) -> list[Index]:
    """The indexes that ``table`` has in ``version``, by name: those of its columns."""
    there = {column.name for column in columns_of(table, version)}
    found = [index for index in table.indexes if {column.name for column in index.columns} <= there]
    return sorted(found, key=lambda index: str(index.name))


def added_columns(table: Table) -> set[str]:
    """The columns of ``table`` that a later version added than the one that made the table."""
    return {name for each in VERSIONS for name in each.columns.get(table.name, ())}


def elements_of(version: int) -> frozenset[Element]:
    """All elements that there are in ``version``, from 0, which has none, to `LATEST`."""
    structure = {
        element
        for table in tables_of(version)
        for element in _elements(
            table.name,
            (column.name for column in columns_of(table, version)),
            (str(index.name) for index in indexes_of(table, version)),
        )
    }
    return frozenset(structure | {Element(name, Kind.ROWS, name) for name in rows_of(version)})


def rows_of(version: int) -> dict[str, int]:
    """The tables that are made with rows in ``version``, and how many."""
    return {name: count for each in VERSIONS[:version] for name, count in each.rows.items()}


def _elements(table: str, columns: Iterable[str], indexes: Iterable[str]) -> Iterable[Element]:
    yield Element(table, Kind.TABLE, table)
    yield from (Element(table, Kind.COLUMN, name) for name in columns)
    yield from (Element(table, Kind.INDEX, name) for name in indexes)


@dataclass(frozen=True, slots=True)
class TableState:
    """The elements that a database has, unknown columns of outbox's tables among them."""

    found: frozenset[Element]

    @classmethod
    def read(cls, connection: Connection, *, rows: bool = True) -> TableState:
        """Needs the right to read the tables, and nothing else. Without ``rows`` those that tables are made with are
        not counted."""
        inspector = inspect(connection)
        present = set(inspector.get_table_names())
        found = {
            element
            for name in metadata.tables
            if name in present
            for element in _elements(
                name,
                (column["name"] for column in inspector.get_columns(name)),
                (str(index["name"]) for index in inspector.get_indexes(name)),
            )
        }
        for name, count in rows_of(LATEST).items() if rows else ():
            if name in present:
                there = connection.scalar(select(func.count()).select_from(metadata.tables[name]))
                found |= {Element(name, Kind.ROWS, name)} if there == count else set()
        return cls(frozenset(found))

    @property
    def version(self) -> int:
        """The highest version of which all tables and columns are there; 0 without the tables of the first."""
        kept = {element for element in self.found if element.kind not in _OPTIONAL}
        complete = (number for number in range(LATEST + 1) if _structure(number) <= kept)
        return max(complete)

    @property
    def missing(self) -> frozenset[Element]:
        """What this code needs and the database lacks."""
        return elements_of(LATEST) - self.found

    @property
    def unknown(self) -> frozenset[Element]:
        """Columns of newer tables. Indexes are not among them: administrators add their own."""
        columns = {element for element in self.found if element.kind is Kind.COLUMN}
        return frozenset(columns - elements_of(LATEST))


def _structure(version: int) -> set[Element]:
    return {element for element in elements_of(version) if element.kind not in _OPTIONAL}


def listed(elements: Iterable[Element]) -> str:
    """For people: ``queue_jobs (last_error, last_error_at), queue_pauses``."""
    names: dict[str, list[str]] = {}
    for element in sorted(elements):
        shown = "its rows" if element.kind is Kind.ROWS else element.name
        names.setdefault(element.table, []).extend([shown] if element.kind is not Kind.TABLE else [])
    whole = {element.table for element in elements if element.kind is Kind.TABLE}
    return ", ".join(
        table if table in whole or not parts else f"{table} ({', '.join(parts)})" for table, parts in names.items()
    )
