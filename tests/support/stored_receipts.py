"""What tests that dispatch receipts find in the store. Not in `orders`, which earlier releases import too."""

from __future__ import annotations

import json

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import StoredJob


async def stored(driver: DatabaseDriver) -> list[StoredJob]:
    return await driver.jobs.list_jobs(limit=10_000)


async def numbers(driver: DatabaseDriver) -> list[int]:
    """The orders of the receipts that are stored."""
    return sorted(json.loads(job.payload)["order_id"] for job in await stored(driver))
