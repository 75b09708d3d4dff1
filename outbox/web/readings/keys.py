"""Keys that a failed job blocks, and limits."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.base import Driver
from outbox.drivers.values import LimitStatus
from outbox.ids import JobId
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers, Blocked


class KeyReadings(Subject):
    @once
    async def blocked(self) -> Answers[list[Blocked]]:
        async def read(driver: Driver) -> dict[JobId, str]:
            return {} if driver.policies is None else await driver.policies.blocked_keys()

        found, errors = await self.stores.ask_all(read)
        return Answers(
            [Blocked(name, key, job_id) for name, each in found.items() for job_id, key in each.items()], errors
        )

    @once
    async def limits(self) -> Answers[list[tuple[str, LimitStatus]]]:
        async def read(driver: Driver) -> Sequence[LimitStatus]:
            return [] if driver.limits is None else await driver.limits.list()

        found, errors = await self.stores.ask_all(read)
        return Answers([(name, limit) for name, each in found.items() for limit in each], errors)
