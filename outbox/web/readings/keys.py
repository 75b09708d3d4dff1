"""Keys that a failed job blocks, and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.drivers.base import Driver
from outbox.drivers.filters import BlockedPage
from outbox.drivers.values import LimitStatus
from outbox.ids import JobId
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers, Blocked, BlockedKeys

LIMITS_SHOWN = 200


class KeyReadings(Subject):
    @once
    async def blocked(self) -> Answers[BlockedKeys]:
        """Of the latest failed jobs of each connection."""

        async def read(driver: Driver) -> BlockedPage:
            return await _page(driver, None)

        found, errors = await self.stores.ask_all(read)
        return Answers(_together(found), errors)

    @once
    async def blocked_before(self, connection: str, before: JobId) -> BlockedKeys:
        """Of earlier failed jobs of one connection."""

        async def read(driver: Driver) -> BlockedPage:
            return await _page(driver, before)

        return _together({connection: await self.stores.ask(connection, read)})

    @once
    async def limits(self) -> Answers[list[tuple[str, LimitStatus]]]:
        """At most `LIMITS_SHOWN` of each connection that jobs have used."""

        async def read(driver: Driver) -> Sequence[LimitStatus]:
            return [] if driver.limits is None else await driver.limits.list(LIMITS_SHOWN)

        found, errors = await self.stores.ask_all(read)
        return Answers([(name, limit) for name, each in found.items() for limit in each], errors)


async def _page(driver: Driver, before: JobId | None) -> BlockedPage:
    return BlockedPage({}, None) if driver.policies is None else await driver.policies.blocked_page(before)


def _together(pages: Mapping[str, BlockedPage]) -> BlockedKeys:
    return BlockedKeys(
        tuple(Blocked(name, key, job_id) for name, page in pages.items() for job_id, key in page.keys.items()),
        {name: page.next for name, page in pages.items() if page.next is not None},
    )
