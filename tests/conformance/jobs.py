"""Envelopes for drivers, which do not care what a payload means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from outbox.drivers.base import Driver
from outbox.drivers.values import BlockingClaimRequest, Claim, NextDue
from outbox.envelope import Envelope
from outbox.ids import new_job_id
from outbox.settlement import Failure

FAILURE = Failure("ValueError", "no such order", "Traceback: …")


def envelope(
    number: int = 0,
    *,
    queue: str = "default",
    priority: int = 5,
    delay: float = 0.0,
    available_at: datetime | None = None,
    payload: str | None = None,
) -> Envelope:
    job = Envelope(new_job_id(), queue, "tests.Job", priority, payload or f'{{"number": {number}}}')
    return job._replace(delay=delay, available_at=available_at)


def envelopes(count: int, *, queue: str = "default", priority: int = 5) -> list[Envelope]:
    return [envelope(number, queue=queue, priority=priority) for number in range(count)]


async def wait_for_a_job(driver: Driver, queues: list[str], wake: Callable[[], None]) -> NextDue:
    """As an idle worker does: with a blocking claim where the driver has them."""
    if driver.blocking_claims is None:
        return await driver.jobs.next_due(queues)
    return await driver.blocking_claims.next_due(queues, BlockingClaimRequest(30, wake))


async def wait_no_more(driver: Driver) -> list[Claim]:
    return [] if driver.blocking_claims is None else await driver.blocking_claims.cancel()


async def claim_one(driver: Driver, queue: str = "default", lease: float = 30) -> Claim:
    claims = await driver.jobs.claim([queue], 1, lease)
    assert len(claims) == 1, f"{queue} gave {len(claims)} jobs"
    return claims[0]
