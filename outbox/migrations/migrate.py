"""Upgrades and downgrades of outbox's tables, and which version a database has."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Table, select, true

from outbox.drivers.database.ddl import check_version, downgrade_changes, upgrade_changes
from outbox.drivers.database.tables import SEEDS, metadata
from outbox.drivers.database.versions import Element, Kind, TableState, elements_of, listed
from outbox.errors import MigrationError
from outbox.migrations.online import Operations, apply

_OF_NO_VALUE = {"queue_workers", "queue_metrics", *SEEDS}
"""Workers write their rows anew with every heartbeat, and an upgrade those that tables are made with. Metrics are
numbers of what was done: any worker that has run has written some, and a way back must not end there."""
_DERIVED = {Element("queue_failed_jobs", Kind.COLUMN, "fingerprint")}
"""Columns that are made from others."""


def version_of(connection: Connection) -> int:
    """The version of the tables in a database; 0 where the tables of version 1 are not all there.

    With an ``AsyncConnection``: ``await connection.run_sync(version_of)``. The right to read the tables is enough.
    """
    return TableState.read(connection).version


def upgrade(op: Operations, *, version: int, from_version: int | None = None, lock_timeout: float = 60.0) -> None:
    """Add what the tables lack of ``version``, from 1 to `LATEST`; nothing if they have it already.

    It looks at the tables first. They may be of any version, made by autogenerate, or changed in part by an upgrade
    that was interrupted. With ``alembic upgrade --sql`` it cannot look, and ``from_version`` says which version they
    have, 0 for no tables.

    MySQL and MariaDB change tables instantly, else in place, while jobs are dispatched and run. ``ALTER TABLE`` waits
    for transactions that are open on a table, and others wait for it. So it waits for one second at a time, and tries
    again for ``lock_timeout`` seconds.

    Raises:
        MigrationError: there is no such version; a table of this name is not outbox's; a transaction stayed open on a
            table for ``lock_timeout`` seconds; ``from_version`` is missing.
    """
    check_version(version, lowest=1)
    dialect = _context(op).dialect
    example = f"upgrade(op, version={version}, from_version={version - 1})"
    apply(op, lambda: upgrade_changes(dialect, _found(op, from_version, example), version), lock_timeout)


def downgrade(
    op: Operations,
    *,
    version: int,
    from_version: int | None = None,
    discard: bool = False,
    lock_timeout: float = 60.0,
) -> None:
    """Remove what the tables have beyond ``version``, from 0, which removes all tables.

    With ``discard``, what is stored there goes with it; else nothing is changed while anything is. With
    ``alembic downgrade --sql``, it cannot look, and the statements remove what there is.

    Raises:
        MigrationError: as for `upgrade`; something is stored that would be lost; a newer release of outbox has
            changed the tables.
    """
    check_version(version, lowest=0)
    dialect = _context(op).dialect
    example = f"downgrade(op, version={version}, from_version={version + 1})"
    found = _found(op, from_version, example)
    if unknown := TableState(found).unknown:
        raise MigrationError(
            f"the tables are newer than this release of outbox, which does not know {listed(unknown)}: "
            "downgrade them with the release that made them"
        )
    if not discard and not _context(op).as_sql:
        _refuse_loss(op.get_bind(), found - elements_of(version))
    apply(op, lambda: downgrade_changes(dialect, _found(op, from_version, example), version), lock_timeout)


def _context(op: Operations) -> MigrationContext:
    context = op.get_context()
    if context.dialect.name not in {"mysql", "mariadb", "sqlite"}:
        raise MigrationError(f"outbox keeps jobs in MySQL, MariaDB or SQLite, not in {context.dialect.name}")
    return context


def _found(op: Operations, from_version: int | None, example: str) -> frozenset[Element]:
    if not _context(op).as_sql:
        return TableState.read(op.get_bind()).found
    if from_version is None:
        raise MigrationError(f"without a connection (--sql), say which version the tables have, as in {example}")
    check_version(from_version, lowest=0)
    return elements_of(from_version)


def _refuse_loss(connection: Connection, surplus: Collection[Element]) -> None:
    if lost := [element for element in _stored(surplus) if _holds_anything(connection, element)]:
        raise MigrationError(
            f"the downgrade would lose what is stored in {listed(lost)}; nothing was changed. "
            "Remove it first, or pass discard=True"
        )


def _stored(surplus: Collection[Element]) -> Iterator[Element]:
    """What may hold anything of value: tables, and columns of tables that stay."""
    tables = {element.table for element in surplus if element.kind is Kind.TABLE}
    for element in sorted(surplus):
        goes_with_table = element.kind is not Kind.TABLE and element.table in tables
        holds = element.kind in {Kind.TABLE, Kind.COLUMN} and not goes_with_table
        if holds and element.table not in _OF_NO_VALUE and element not in _DERIVED:
            yield element


def _holds_anything(connection: Connection, element: Element) -> bool:
    table: Table = metadata.tables[element.table]
    condition = table.c[element.name].is_not(None) if element.kind is Kind.COLUMN else true()
    return connection.execute(select(1).select_from(table).where(condition).limit(1)).first() is not None
