"""Failed jobs, and the groups of those that failed alike."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.base import Driver
from outbox.drivers.filters import FailedFilter, FailedGroup, FailedPage
from outbox.ids import JobId
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers

_MANY = 1_000
"""Failed jobs whose groups are not counted for each view."""


class FailedJobReadings(Subject):
    @once
    async def groups(
        self, matching: FailedFilter, queue: str | None, limit: int
    ) -> Answers[list[tuple[FailedGroup, list[int]]]]:
        """The largest groups of all connections first, each with its failures by the hour."""
        found, errors = await self.stores.each(lambda name: self._groups(name, matching, queue, limit))
        groups = [group for each in found.values() for group in each]
        return Answers(sorted(groups, key=lambda each: -each[0].count)[:limit], errors)

    @once
    async def group(
        self, connection: str, matching: FailedFilter, queue: str | None
    ) -> tuple[FailedGroup | None, list[int]]:
        """The group of ``matching`` with its failures by the hour; None where no group is meant, or it is gone."""
        if matching.group is None:
            return None, []
        found = await self._groups(connection, matching, queue, 1)
        return found[0] if found else (None, [])

    async def _groups(
        self, connection: str, matching: FailedFilter, queue: str | None, limit: int
    ) -> list[tuple[FailedGroup, list[int]]]:
        async def read(driver: Driver) -> list[tuple[FailedGroup, list[int]]]:
            groups = await driver.failed.groups(queue, limit, matching=matching)
            return list(zip(groups, await driver.failed.hours(groups), strict=True))

        return await self.stores.recent(connection, ("groups", matching, queue, limit), read, _are_many)

    @once
    async def page(
        self, connection: str, matching: FailedFilter, queue: str | None, limit: int, before: JobId | None
    ) -> FailedPage:
        async def read(driver: Driver) -> FailedPage:
            if driver.failed_pages is not None:
                return await driver.failed_pages.page(queue, limit, before, matching=matching)
            jobs = await driver.failed.page(queue, limit + 1, before, matching=matching)
            return FailedPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

        return await self.stores.ask(connection, read)

    @once
    async def latest(self) -> tuple[JobId, ...]:
        """The latest failed job of each connection."""
        found, _ = await self.stores.ask_all(lambda driver: driver.failed.page(limit=1))
        return tuple(job.id for jobs in found.values() for job in jobs)


def _are_many(groups: Sequence[tuple[FailedGroup, list[int]]]) -> bool:
    return sum(group.count for group, _ in groups) > _MANY
