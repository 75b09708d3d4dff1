"""Rows whose time is over: portions are found without a lock, and removed by their ids in transactions of their own."""

from __future__ import annotations

from outbox.drivers.database.chunks import KEYS_PER_STATEMENT
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect


async def forget(database: Database, table: str, over: str, key: str = "id") -> int:
    """Remove the rows that ``over`` finds, a condition and perhaps an order. Returns how many they were."""
    removed = 0
    while ids := await database.read_plain(running(_find, table, over, key)):
        some = await database.write_plain(running(_remove, database.dialect, table, key, ids))
        removed += some
        if some < KEYS_PER_STATEMENT:
            break
    return removed


def _find(table: str, over: str, key: str) -> Plan[list[bytes]]:
    rows = yield f"SELECT {key} FROM {table} WHERE {over} LIMIT {KEYS_PER_STATEMENT}", ()
    return sorted(bytes(found) for (found,) in rows)


def _remove(dialect: Dialect, table: str, key: str, ids: list[bytes]) -> Plan[int]:
    listed, parameters = dialect.id_list(ids)
    return (yield f"DELETE FROM {table} WHERE {key} IN ({listed})", parameters).rowcount
