"""Limits, for operators, and for applications that take from a rate themselves."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.audit import recorded
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import running
from outbox.drivers.database.policies import key_operations, rates
from outbox.drivers.database.policies import rate_operations as plans
from outbox.drivers.database.policies.leaving import headers_of
from outbox.drivers.values import LimitStatus, PolicyNews
from outbox.policies.rate_limits import Terms
from outbox.settlement import MoveRates


class Limits:
    """`LimitStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, most: int | None = None) -> Sequence[LimitStatus]:
        return await self._database.read_plain(running(plans.list_limits, self._database.dialect, most))

    async def set(self, name: str, terms: Terms | None = None, *, concurrency: int | None = None) -> None:
        dialect = self._database.dialect
        queues = await self._database.write_plain(
            running(lambda: recorded(dialect, plans.set_limit(dialect, name, terms, concurrency), lambda _: 1))
        )
        self._report(PolicyNews(queues))
        if concurrency is not None:
            self._report(await key_operations.let_in_of_class(self._database, name, concurrency))

    async def reset(self, name: str) -> bool:
        dialect = self._database.dialect
        known, queues = await self._database.write_plain(
            running(lambda: recorded(dialect, plans.reset_limit(dialect, name), lambda found: int(found[0])))
        )
        self._report(PolicyNews(queues))
        if known:
            self._report(await key_operations.let_in_of_class(self._database, name, None))
        return known

    async def terms(self, name: str) -> Terms | None:
        return await self._database.read_plain(running(plans.terms_of, self._database.dialect, name))

    async def take(self, terms: Terms, cost: int, key: str | None) -> float:
        dialect = self._database.dialect
        return await self._database.write_plain(running(plans.take, dialect, terms, cost, key))

    async def move(self, refused: Sequence[MoveRates]) -> None:
        jobs = [(headers_of(each.headers), each.seconds) for each in refused]
        await self._database.write_plain(running(rates.move, self._database.dialect, jobs))

    def _report(self, news: PolicyNews) -> None:
        if news:
            self._database.on_policy_news(news)
