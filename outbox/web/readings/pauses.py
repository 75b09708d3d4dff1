"""What is paused."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.pauses import Pause, PauseKind
from outbox.web.readings.source import Subject, once


class PauseReadings(Subject):
    @once
    async def of(self, connection: str) -> Sequence[Pause]:
        return await self.stores.ask(connection, lambda driver: driver.pauses.all())

    async def of_keys(self) -> list[tuple[str, Pause]]:
        """Keys that are paused, each with its connection."""
        found = await self.by_connection()
        return [(name, pause) for name, each in found.items() for pause in each if pause.kind is PauseKind.KEY]

    @once
    async def by_connection(self) -> dict[str, Sequence[Pause]]:
        """Those of the connections that answer."""
        return (await self.stores.ask_all(lambda driver: driver.pauses.all()))[0]
