"""INSERTs without outbox: the rows of a dispatch, written over the driver alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from benchmarks.bare import innodb, sqlite
from benchmarks.stores import Store
from outbox.ids import new_job_ids

_INSERT = (
    "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, created_at) VALUES "
)
_VALUES = "({p}, 'default', 'benchmarks.NoOp', 5, {p}, '{{}}', 0, {now}, {now})"


class Writer(ABC):
    """Writes jobs, so many rows to a statement."""

    def __init__(self, rows: int, placeholder: str, now: str) -> None:
        values = _VALUES.format(p=placeholder, now=now)
        self._statement = _INSERT + ", ".join([values] * rows)

    async def write(self, numbers: Sequence[int]) -> None:
        """One statement, in the transaction that is open or begins here."""
        parameters: list[Any] = []
        for job_id, number in zip(new_job_ids(len(numbers)), numbers, strict=True):
            parameters += (job_id.bytes, f'{{"number": {number}}}')
        await self.execute(self._statement, parameters)

    @abstractmethod
    async def execute(self, statement: str, parameters: Sequence[Any]) -> None: ...

    @abstractmethod
    async def autocommit(self) -> None:
        """From now on, each statement is a transaction."""

    @abstractmethod
    async def commit(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class InnoDBWriter(Writer):
    def __init__(self, connection: Any, rows: int) -> None:
        super().__init__(rows, "%s", "UTC_TIMESTAMP(6)")
        self._connection = connection

    async def execute(self, statement: str, parameters: Sequence[Any]) -> None:
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement, tuple(parameters))

    async def autocommit(self) -> None:
        await self._connection.autocommit(True)

    async def commit(self) -> None:
        await self._connection.commit()

    async def close(self) -> None:
        await self._connection.ensure_closed()


class SQLiteWriter(Writer):
    def __init__(self, url: str, rows: int) -> None:
        super().__init__(rows, "?", "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')")
        self._connection = sqlite.connect(url)
        self._begins = True

    async def execute(self, statement: str, parameters: Sequence[Any]) -> None:
        if self._begins and not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(statement, parameters)

    async def autocommit(self) -> None:
        self._begins = False

    async def commit(self) -> None:
        self._connection.execute("COMMIT")

    async def close(self) -> None:
        self._connection.close()


async def open_writer(store: Store, rows: int) -> Writer:
    if store.is_sql_server:
        return InnoDBWriter(await innodb.connect(store.url), rows)
    return SQLiteWriter(store.url, rows)
