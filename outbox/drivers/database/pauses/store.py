"""Pauses in a database: of the connection, of queues, of job classes and of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.breakers import BreakerTerms
from outbox.drivers.database.audit import recorded
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import running
from outbox.drivers.database.pauses import breaker_statements, statements
from outbox.drivers.database.policies.base import Upkeep
from outbox.drivers.pauses import Pause, PauseKind, PauseTarget, PauseTerms, check_target
from outbox.drivers.values import PolicyNews
from outbox.events import Resumed
from outbox.ids import JobId

_KEYS_LOOKED_AT = 100_000
_OF_JOBS = {PauseKind.JOB, PauseKind.KEY}


class Pauses:
    """`PauseStore`, and `BreakerStore`."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def pause(self, target: PauseTarget, terms: PauseTerms) -> bool:
        dialect, checked = self._database.dialect, check_target(target)
        is_new = await self._database.write_plain(
            running(
                lambda: recorded(
                    dialect,
                    statements.pause(dialect, checked, terms),
                    lambda is_new: int(is_new or bool(terms.changes)),
                )
            )
        )
        if not is_new and target.kind in _OF_JOBS and terms.changes:
            # Its jobs wait for the end that it had before. Claims find them, and let them wait for the new one.
            await self._release(statements.pause_id(target), lambda _: None)
        return is_new

    async def resume(self, target: PauseTarget, on_released: Callable[[frozenset[str]], None]) -> bool:
        dialect, checked = self._database.dialect, check_target(target)
        ended = await self._database.write_plain(
            running(lambda: recorded(dialect, statements.resume(dialect, checked), int))
        )
        if target.kind in _OF_JOBS:
            await self._release(statements.pause_id(target), on_released)
        return ended

    async def all(self) -> Sequence[Pause]:
        return await self._database.inspect(running(statements.all_pauses, self._database.dialect, self._name))

    async def has_key(self, name: str) -> bool:
        mark = self._database.dialect.placeholder
        some = f"(SELECT name FROM queue_keyed_jobs LIMIT {_KEYS_LOOKED_AT}) AS some"

        async def read(connection: AsyncConnection) -> bool:
            rows = await connection.exec_driver_sql(f"SELECT 1 FROM {some} WHERE name = {mark} LIMIT 1", (name,))
            return bool(list(rows))

        return await self._database.inspect(read)

    async def _release(self, pause_id: bytes, on_released: Callable[[frozenset[str]], None]) -> None:
        last: bytes | None = b""
        while last is not None:
            released = await self._database.write_plain(
                running(statements.release, self._database.dialect, pause_id, last)
            )
            if released.queues:
                on_released(released.queues)
            last = released.last

    async def failed(self, name: str, job_id: JobId, terms: BreakerTerms, error: str) -> bool:
        dialect = self._database.dialect
        return await self._database.write_plain(
            running(breaker_statements.failed, dialect, name, job_id.bytes, terms, error)
        )

    async def is_paused(self, name: str) -> bool:
        plan = running(breaker_statements.probe_of, self._database.dialect, name)
        return (await self._database.read_plain(plan))[0]

    async def succeeded(self, name: str, job_id: JobId, on_released: Callable[[frozenset[str]], None]) -> bool:
        dialect = self._database.dialect
        closed = await self._database.write_plain(running(breaker_statements.succeeded, dialect, name, job_id.bytes))
        if closed:
            await self._release(breaker_statements.id_of(name), on_released)
        return closed

    def needs_upkeep(self) -> str:
        """A condition: anything is paused, or a pause has left something."""
        tables = ("queue_pauses", "queue_job_pauses", "queue_paused_jobs")
        return " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables)

    async def upkeep(self) -> Upkeep:
        """Remove pauses that have ended by themselves, and release what a process that was killed has left."""
        dialect = self._database.dialect
        news: list[PolicyNews] = []
        for pause in await self._database.read_plain(running(statements.all_pauses, dialect, self._name, ended=True)):
            if await self._end(pause.target):
                event = Resumed(self._name, pause.kind, pause.name, by_itself=True)
                news.append(PolicyNews(events=(event,)))
        for pause_id in await self._database.read_plain(running(statements.left, dialect)):
            await self._release(pause_id, lambda queues: news.append(PolicyNews(queues)))
        return Upkeep(sum(news, PolicyNews()))

    async def _end(self, target: PauseTarget) -> bool:
        """Remove a pause that has ended; False where another worker has, or it was renewed."""
        return await self._database.write_plain(running(statements.resume, self._database.dialect, target, ended=True))
