"""Deletion of rows for an operator: by primary key, in short transactions of at most a thousand rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.audit import record
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import run
from outbox.ids import JobId

CHUNK = 1_000
"""Rows per transaction: enough to be quick, few enough that other transactions wait only briefly."""

Also = Callable[[AsyncConnection, Sequence[bytes]], Awaitable[None]]
Gated = Callable[[AsyncConnection, Sequence[bytes]], Awaitable[frozenset[bytes]]]


def chunks(job_ids: Iterable[JobId]) -> Iterator[list[bytes]]:
    """Keys in sorted order, so that all transactions lock rows in the same order."""
    keys = sorted({job_id.bytes for job_id in job_ids})
    for start in range(0, len(keys), CHUNK):
        yield keys[start : start + CHUNK]


class BatchDelete:
    """One transaction, which locks those of ``keys`` that still meet ``conditions``, and removes them after ``also``.

    ``gated`` is called before with the keys of rows that have policies, and returns those that stay.

    ``skip_locked`` passes over rows that another transaction has locked, such as a claim.
    """

    def __init__(
        self,
        database: Database,
        table: Table,
        keys: Sequence[bytes],
        *conditions: ColumnElement[bool],
        also: Also | None = None,
        gated: Gated | None = None,
        skip_locked: bool = False,
    ) -> None:
        self._database = database
        self._table = table
        self._also = also
        self._gated = gated
        locking = select(table.c.id, table.c.policies).where(*conditions).with_for_update(skip_locked=skip_locked)
        self._locking = database.dialect.by_ids(locking, table, keys)
        self._taken: list[bytes] = []

    async def run(self) -> list[bytes]:
        """The keys of the rows that were removed."""
        return await self._database.write(self._apply_and_record, confirm=self._recover)

    async def _apply_and_record(self, connection: AsyncConnection) -> list[bytes]:
        taken = await self.apply(connection)
        await run(record(self._database.dialect, len(taken)), connection)
        return taken

    async def apply(self, connection: AsyncConnection) -> list[bytes]:
        """`run` in a transaction that is under way."""
        rows = (await connection.execute(self._locking)).all()
        self._taken = [bytes(row.id) for row in rows]
        with_policies = [bytes(row.id) for row in rows if row.policies is not None]
        if with_policies and self._gated is not None:
            stay = await self._gated(connection, with_policies)
            self._taken = [key for key in self._taken if key not in stay]
        if self._taken:
            if self._also is not None:
                await self._also(connection, self._taken)
            await connection.execute(self._database.dialect.delete(self._table, self._taken))
        return self._taken

    async def _recover(self, connection: AsyncConnection) -> list[bytes] | None:
        """What became of a commit whose answer was lost: all or nothing, so one row still there says nothing."""
        left = select(func.count()).select_from(self._table).where(self._table.c.id.in_(self._taken))
        return None if await connection.scalar(left) else self._taken
