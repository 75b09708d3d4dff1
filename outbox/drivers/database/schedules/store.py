"""The schedules of a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

from outbox.drivers.database.audit import recorded
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.schedules import rows, ticking
from outbox.drivers.database.schedules.ticking import Ticked
from outbox.drivers.schedules import Declared, DueSchedule, StoredSchedule, Templates
from outbox.drivers.values import PolicyNews
from outbox.ids import JobId
from outbox.policies.schedule import Definition

T = TypeVar("T")


class DatabaseSchedules:
    """`ScheduleStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _act(self, plan: Callable[[Dialect], Plan[T]], count: Callable[[T], int]) -> T:
        """What an operator does."""
        dialect = self._database.dialect
        return await self._database.write_plain(running(lambda: recorded(dialect, plan(dialect), count)))

    async def next_due(self, known: Collection[str]) -> list[DueSchedule]:
        return await self._database.read_plain(running(ticking.next_due, self._database.dialect, known))

    async def tick(self, name: str, templates: Templates) -> bool:
        done = await self._database.write_plain(running(ticking.tick, self._database.dialect, name, templates))
        self._report(done)
        return done is not None

    def _report(self, done: Ticked | None) -> None:
        if done is None:
            return
        hear = self._database.on_policy_news
        for news in (done.news, PolicyNews(events=tuple(done.ticked)), PolicyNews(events=tuple(done.skipped))):
            if news:
                hear(news)

    async def sync(self, declared: Sequence[Declared]) -> list[str]:
        if not declared:
            return []
        changed = await self._database.read_plain(running(rows.to_sync, self._database.dialect, declared))
        return [each.name for each in changed if not await self._sync(each)]

    async def _sync(self, declared: Declared) -> bool:
        return await self._database.write_plain(running(rows.sync, self._database.dialect, declared))

    async def put(self, name: str, definition: Definition) -> bool:
        return await self._database.write_plain(running(rows.put, self._database.dialect, name, definition))

    async def remove(self, name: str) -> bool:
        return await self._act(lambda dialect: rows.remove(dialect, name), int)

    async def pause(self, name: str) -> bool:
        return await self._act(lambda dialect: rows.pause(dialect, name), int)

    async def resume(self, name: str) -> bool:
        return await self._act(lambda dialect: rows.resume(dialect, name), int)

    async def get(self, name: str) -> StoredSchedule | None:
        found = await self._database.read_plain(running(rows.stored, self._database.dialect, name))
        return found[0] if found else None

    async def list(self) -> list[StoredSchedule]:
        return await self._database.read_plain(running(rows.stored, self._database.dialect))

    async def run(self, name: str, templates: Templates) -> JobId | None:
        done = await self._act(lambda dialect: ticking.run_now(dialect, name, templates), _jobs)
        self._report(done)
        return None if done is None or not done.jobs else done.jobs[0][1]

    async def backfill(self, name: str, ticks: Sequence[datetime], templates: Templates) -> Sequence[datetime]:
        done = await self._act(lambda dialect: ticking.backfill(dialect, name, ticks, templates), _jobs)
        self._report(done)
        return [] if done is None else [tick for tick, _ in done.jobs]


def _jobs(done: Ticked | None) -> int:
    return 0 if done is None else len(done.jobs)
