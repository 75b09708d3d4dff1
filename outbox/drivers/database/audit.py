"""The rows of `queue_audit`: what operators did, written in the transactions in which they did it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, ColumnElement, Index, Table, and_, exists, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.audit import AUDIT_KEPT, LONGEST_BY, AuditEntry, current_act
from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.forgetting import forget
from outbox.drivers.database.policies.base import Upkeep
from outbox.drivers.database.tables import INNODB, ascii_text, binary, long_text, metadata, short_text, timestamp
from outbox.errors import JobNotFound, RepeatedAction
from outbox.ids import JobId

T = TypeVar("T")

_LONGEST_ACTION = 64

audit = Table(
    "queue_audit",
    metadata,
    Column("id", binary(), primary_key=True),
    Column("acted_at", timestamp(), nullable=False),
    Column("acted_by", short_text(), nullable=False),
    Column("action", ascii_text(64), nullable=False),
    Column("target", long_text(), nullable=False),
    Column("affected", BigInteger(), nullable=False),
    Index("queue_audit_acted_at", "acted_at"),
    **INNODB,
)
"""An entry of an action of several transactions is written by the first, and counted on by the others."""


def record(dialect: Dialect, count: int, *, even_none: bool = False) -> Plan[None]:
    """In the transaction of an action: write that it has changed ``count`` jobs or other things. Nothing is written
    where no person acts, or it has changed none, unless ``even_none``.

    Raises:
        RepeatedAction: the request that asks for it was carried out before.
    """
    act = current_act()
    if act is None or not (count or even_none):
        return
    yield from entry(dialect, act.id, act.by, act.action, act.target, count, is_new=act.is_new)
    # The next transaction of the action counts on in the same entry, as does one that is tried again.
    act.is_new = False


def recorded(dialect: Dialect, plan: Plan[T], count: Callable[[T], int]) -> Plan[T]:
    """``plan``, and a record of ``count`` of what it returns.

    Raises:
        RepeatedAction: as `record`.
    """
    result = yield from plan
    yield from record(dialect, count(result))
    return result


def entry(
    dialect: Dialect, entry_id: JobId, by: str, action: str, target: Mapping[str, Any], count: int, *, is_new: bool
) -> Plan[None]:
    """Write an entry, or count on in one that is there.

    Raises:
        RepeatedAction: it is to be new, and one is there.
    """
    listed, parameters = dialect.id_list([entry_id.bytes])
    mark = dialect.placeholder
    text = json.dumps(dict(target), default=str)
    existing = "" if is_new else f" {dialect.update_existing('id')} affected = queue_audit.affected + {count:d}"
    written = yield (
        f"{dialect.insert_missing if is_new else 'INSERT INTO'} queue_audit "
        "(id, acted_at, acted_by, action, target, affected) "
        f"VALUES ({listed}, {dialect.now}, {mark}, {mark}, {mark}, {count:d}){existing}",
        (*parameters, _storable(by)[:LONGEST_BY], action[:_LONGEST_ACTION], text),
    )
    if is_new and not written.rowcount:
        raise RepeatedAction(f"this was asked for before, and done: {action}. To do it again, begin anew from the page")


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class AuditRows:
    """`AuditLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._over = f"acted_at < {database.dialect.seconds_from_now(-AUDIT_KEPT)}"

    async def latest(self, limit: int, before: JobId | None = None) -> list[AuditEntry]:
        # By the time, not by the id: a form has its id long before it is sent.
        newest = select(*map(raw_columns.as_stored, audit.c)).order_by(audit.c.acted_at.desc(), audit.c.id.desc())
        parse = self._database.dialect.parse_timestamp

        async def read(connection: AsyncConnection) -> list[AuditEntry]:
            query = newest if before is None else newest.where(*await _older(connection, before))
            rows = (await connection.execute(query.limit(limit))).mappings()
            found = [_entry(raw_columns.values(audit, row, parse)) for row in rows]
            return [each for each in found if each is not None]

        return await self._database.inspect(read)

    def needs_upkeep(self) -> str:
        """A condition: there are entries to forget."""
        return f"EXISTS (SELECT 1 FROM queue_audit WHERE {self._over})"

    async def upkeep(self) -> Upkeep:
        await self.prune()
        return Upkeep()

    async def prune(self) -> int:
        return await forget(self._database, "queue_audit", f"{self._over} ORDER BY acted_at")


async def _older(connection: AsyncConnection, before: JobId) -> tuple[ColumnElement[bool], ...]:
    """The conditions of entries that are older than one.

    Raises:
        JobNotFound: there is no such entry.
    """
    is_last = audit.c.id == before.bytes
    if await connection.scalar(select(literal(1)).where(exists().where(is_last))) is None:
        raise JobNotFound(f"the audit log has no entry {before}: begin again with the first page")
    last = select(audit.c.acted_at).where(is_last).scalar_subquery()
    same = and_(audit.c.acted_at == last, audit.c.id < before.bytes)
    # The first condition bounds what is read of the index: servers do not see it in an OR.
    return audit.c.acted_at <= last, or_(audit.c.acted_at < last, same)


def _entry(values: Mapping[str, Any]) -> AuditEntry | None:
    """None for a row whose id is none."""
    entry_id = raw_columns.job_id(values["id"])
    if entry_id is None:
        return None
    try:
        target = json.loads(values["target"])
    except (ValueError, RecursionError):
        target = None
    if not isinstance(target, dict):
        target = {"target": values["target"]}
    return AuditEntry(entry_id, values["acted_at"], values["acted_by"], values["action"], target, values["affected"])
