"""Claims until every job that cannot run is parked."""

from __future__ import annotations

import asyncio

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim

LEASE = 7_200.0
_SOON = 60.0
"""Seconds. What is due later waits for a lease or for a limit."""


async def park(driver: DatabaseDriver, limit: int = 100) -> list[Claim]:
    """Claim until nothing is due; return what was claimed.

    After a claim has parked many jobs, the next may find none though some are due: it would read the index entries that
    the parked ones have left. The driver says when to claim again.
    """
    held: list[Claim] = []
    while True:
        if claims := await driver.jobs.claim(["default"], limit, LEASE):
            held += claims
            continue
        due = (await driver.jobs.next_due(["default"])).due
        if due is None or due > _SOON:
            return held
        await asyncio.sleep(due)
