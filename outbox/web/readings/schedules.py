"""Schedules as stored, beside those that this process declares."""

from __future__ import annotations

from outbox.drivers.base import Driver
from outbox.drivers.schedules import StoredSchedule
from outbox.errors import JobNotFound, OutboxError
from outbox.schedules import declared_schedules
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers, Schedule, next_ticks, state_of


class ScheduleReadings(Subject):
    @once
    async def all(self) -> Answers[list[Schedule]]:
        known = self._declared()

        async def read(driver: Driver) -> list[Schedule]:
            if driver.schedules is None:
                return []
            stored = await driver.schedules.list()
            return [Schedule(driver.name, each, state_of(each, known)) for each in stored]

        found, errors = await self.stores.ask_all(read)
        return Answers([schedule for each in found.values() for schedule in each], errors)

    @once
    async def get(self, connection: str, name: str) -> Schedule:
        """
        Raises:
            JobNotFound: there is none of this name.
        """
        known = self._declared()

        async def read(driver: Driver) -> StoredSchedule | None:
            return None if driver.schedules is None else await driver.schedules.get(name)

        stored = await self.stores.ask(connection, read)
        if stored is None:
            raise JobNotFound(f"there is no schedule {name!r} on the connection {connection}")
        return Schedule(connection, stored, state_of(stored, known), next_ticks(stored))

    def _declared(self) -> frozenset[str] | None:
        """Names of the schedules that this process declares; None where its declarations cannot be read."""
        try:
            with self.stores.as_client():
                return frozenset(each.name for each in declared_schedules(self.stores.settings))
        except OutboxError:
            return None
