"""Bulk operations, and the audit log."""

from __future__ import annotations

from outbox.bulk import operations_of
from outbox.drivers.base import Driver
from outbox.drivers.bulk import BulkPreview, BulkRequest
from outbox.ids import JobId
from outbox.web.readings.source import Subject, once
from outbox.web.values import OperationsPage

_PREVIEWED = 3_000
"""Jobs that a preview looks at: fewer than that of the command, which may take longer."""


class OperationReadings(Subject):
    @once
    async def page(
        self, connection: str, limit: int, before: JobId | None = None, audit_before: JobId | None = None
    ) -> OperationsPage:
        async def read(driver: Driver) -> OperationsPage:
            now = await driver.now()
            if driver.operations is None or driver.audit is None:
                return OperationsPage(now, is_kept=False)
            made = await driver.operations.latest(limit + 1, before)
            entries = await driver.audit.latest(limit + 1, audit_before)
            return OperationsPage(
                now,
                True,
                tuple(made[:limit]),
                made[limit - 1].id if len(made) > limit else None,
                tuple(entries[:limit]),
                entries[limit - 1].id if len(entries) > limit else None,
            )

        return await self.stores.ask(connection, read)

    @once
    async def preview(self, connection: str, request: BulkRequest) -> BulkPreview:
        async def read(driver: Driver) -> BulkPreview:
            return await operations_of(driver).preview(request, _PREVIEWED)

        return await self.stores.recent(connection, ("preview", request), read, lambda found: found.at_least)
