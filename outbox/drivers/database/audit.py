"""The rows of `queue_audit`: what operators did, written in the transactions in which they did it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, Index, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.audit import AUDIT_KEPT, LONGEST_BY, AuditEntry, current_act
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.forgetting import forget
from outbox.drivers.database.policies.base import Upkeep
from outbox.drivers.database.tables import INNODB, ascii_text, binary, key_name, long_text, metadata, timestamp
from outbox.ids import JobId

T = TypeVar("T")

_LONGEST_ACTION = 64

audit = Table(
    "queue_audit",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("acted_at", timestamp(), nullable=False),
    Column("acted_by", key_name(), nullable=False),
    Column("action", ascii_text(64), nullable=False),
    Column("target", long_text(), nullable=False),
    Column("affected", BigInteger(), nullable=False),
    Index("queue_audit_acted_at", "acted_at"),
    **INNODB,
)
"""An entry of an action of several transactions is written by the first, and counted on by the others."""


def record(dialect: Dialect, count: int) -> Plan[None]:
    """In the transaction of an action: write that it has changed ``count`` jobs or other things. Nothing is written
    where it has changed none, or no person acts."""
    act = current_act()
    if act is not None and count:
        yield entry(dialect, act.id, act.by, act.action, act.target, count)


def recorded(dialect: Dialect, plan: Plan[T], count: Callable[[T], int]) -> Plan[T]:
    """``plan``, and a record of ``count`` of what it returns."""
    result = yield from plan
    yield from record(dialect, count(result))
    return result


def entry(
    dialect: Dialect, entry_id: JobId, by: str, action: str, target: Mapping[str, Any], count: int
) -> tuple[str, tuple[Any, ...]]:
    listed, parameters = dialect.id_list([entry_id.bytes])
    mark = dialect.placeholder
    text = json.dumps(dict(target), default=str)
    return (
        "INSERT INTO queue_audit (id, acted_at, acted_by, action, target, affected) "
        f"VALUES ({listed}, {dialect.now}, {mark}, {mark}, {mark}, {count:d}) "
        f"{dialect.update_existing('id')} affected = queue_audit.affected + {count:d}",
        (*parameters, _storable(by)[:LONGEST_BY], action[:_LONGEST_ACTION], text),
    )


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class AuditRows:
    """`AuditLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._over = f"acted_at < {database.dialect.seconds_from_now(-AUDIT_KEPT)}"

    async def latest(self, limit: int, before: JobId | None = None) -> list[AuditEntry]:
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before.bytes)
        parse = self._database.dialect.parse_timestamp

        async def read(connection: AsyncConnection) -> list[AuditEntry]:
            return [
                AuditEntry(
                    JobId(bytes=bytes(row.id)),
                    parse(row.acted_at),
                    row.acted_by,
                    row.action,
                    json.loads(row.target),
                    row.affected,
                )
                for row in await connection.execute(query)
            ]

        return await self._database.inspect(read)

    def needs_upkeep(self) -> str:
        """A condition: there are entries to forget."""
        return f"EXISTS (SELECT 1 FROM queue_audit WHERE {self._over})"

    async def upkeep(self) -> Upkeep:
        await self.prune()
        return Upkeep()

    async def prune(self) -> int:
        return await forget(self._database, "queue_audit", f"{self._over} ORDER BY acted_at")
