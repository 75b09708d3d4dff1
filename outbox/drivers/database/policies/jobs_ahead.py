"""How many jobs wait before one, as the lines for operators say it."""

from __future__ import annotations

from typing import Any

from outbox.drivers.database.connection.plans import Plan

_COUNTED = 100
"""At most: a page lists many jobs that are parked."""


def ahead(rows: str, parameters: tuple[Any, ...]) -> Plan[str]:
    """``rows`` are those of the jobs that wait before the one: a table, and the conditions on it."""
    found = yield f"SELECT COUNT(*) FROM (SELECT 1 FROM {rows} LIMIT {_COUNTED}) AS some", parameters
    count = next(int(count) for (count,) in found)
    return f"{count:,} {'or more ' if count >= _COUNTED else ''}ahead"
