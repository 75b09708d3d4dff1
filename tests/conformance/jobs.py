"""Envelopes for drivers, which do not care what a payload means."""

from __future__ import annotations

from datetime import datetime

from outbox.drivers.base import Claim, Driver
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


async def claim_one(driver: Driver, queue: str = "default", lease: float = 30) -> Claim:
    claims = await driver.claim([queue], 1, lease)
    assert len(claims) == 1, f"{queue} gave {len(claims)} jobs"
    return claims[0]
