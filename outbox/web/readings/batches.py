"""Batches, and their members."""

from __future__ import annotations

from outbox.batching import no_batch
from outbox.drivers.base import Driver
from outbox.drivers.values import BatchStatus
from outbox.ids import JobId
from outbox.web.readings.source import Subject, once
from outbox.web.values import Answers

_MEMBERS_SHOWN = 100


class BatchReadings(Subject):
    @once
    async def all(self, limit: int) -> Answers[list[tuple[str, BatchStatus]]]:
        """The newest first."""

        async def read(driver: Driver) -> list[BatchStatus]:
            return [] if driver.policies is None else await driver.policies.batches(limit)

        found, errors = await self.stores.ask_all(read)
        pairs = [(name, batch) for name, each in found.items() for batch in each]
        return Answers(sorted(pairs, key=lambda pair: pair[1].created_at, reverse=True)[:limit], errors)

    @once
    async def get(self, connection: str, batch_id: JobId) -> tuple[BatchStatus, list[JobId], list[JobId]]:
        """The batch with the first 100 members that have not ended, and the first 100 that have failed.

        Raises:
            JobNotFound: it is not known.
        """

        async def read(driver: Driver) -> tuple[BatchStatus, list[JobId], list[JobId]] | None:
            if driver.policies is None or (status := await driver.policies.batch(batch_id)) is None:
                return None
            waiting = await driver.policies.batch_members(batch_id)
            failed = await driver.policies.batch_members(batch_id, failed=True)
            return status, waiting[:_MEMBERS_SHOWN], failed[:_MEMBERS_SHOWN]

        found = await self.stores.ask(connection, read)
        if found is None:
            raise no_batch(batch_id)
        return found
