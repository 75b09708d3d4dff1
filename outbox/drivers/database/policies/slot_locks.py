"""Locks on rows that exist from the beginning, in place of rows and gaps that do not exist yet."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import SEEDS


def lock_rows(dialect: Dialect, table: str, slots: Sequence[int], end: str) -> Plan[set[int]]:
    """Lock rows of a table of lock slots in the order of the key; return those that were locked. ``end`` says what
    becomes of rows that others have locked."""
    locked: set[int] = set()
    for some in chunked(slots):
        listed = ", ".join(map(str, some))
        statement = (
            f"SELECT slot FROM {table} {dialect.primary_hint} WHERE slot IN ({listed}) ORDER BY slot {end}",
            (),
        )
        rows = [slot for (slot,) in (yield statement)]
        if not rows and not (yield from _are_there(table, some)):
            # Alembic's autogenerate makes tables without the rows that they begin with.
            yield SEEDS[table].replace("INSERT INTO", dialect.insert_missing, 1), ()
            rows = [slot for (slot,) in (yield statement)]
        locked.update(rows)
    return locked


def _are_there(table: str, slots: Sequence[int]) -> Plan[bool]:
    rows = yield f"SELECT COUNT(*) FROM {table} WHERE slot IN ({', '.join(map(str, slots))})", ()
    return next(int(count) for (count,) in rows) > 0
