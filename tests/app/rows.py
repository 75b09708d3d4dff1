"""What lies in the database, and rows and jobs to begin a test with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import select

import outbox
from app import db
from app.models import Order, Reading
from outbox import Job, JobContext, JobId

J = TypeVar("J", bound=Job)

QUEUE = outbox.metadata.tables["queue_jobs"]


@dataclass(frozen=True)
class Queued:
    """A job as it lies in the queue."""

    name: str
    queue: str
    payload: dict[str, Any]


async def queued() -> list[Queued]:
    async with db.snapshot() as session:
        rows = await session.execute(select(QUEUE.c.name, QUEUE.c.queue, QUEUE.c.payload).order_by(QUEUE.c.id))
        return [Queued(*row) for row in rows]


async def orders() -> list[Order]:
    async with db.snapshot() as session:
        return list(await session.scalars(select(Order).order_by(Order.id)))


async def readings() -> list[Reading]:
    async with db.snapshot() as session:
        return list(await session.scalars(select(Reading).order_by(Reading.id)))


async def stored_order(**values: Any) -> Order:
    """An order that lies in the database, without its job."""
    order = Order(**{"customer": "ada@example.com", "item": "lamp", "quantity": 2, "total_cents": 11800, **values})
    async with db.transaction() as session:
        session.add(order)
    return order


async def stored_reading(hour: int = 0, value: float = 50.0, unit: str = "F") -> Reading:
    """A reading that lies in the database, without its job."""
    reading = Reading(sensor="roof", measured_at=datetime(2010, 7, 1, hour, tzinfo=UTC), value=value, unit=unit)
    async with db.transaction() as session:
        session.add(reading)
    return reading


def running(job: J) -> J:
    """The same job as a worker would hand it to `handle`."""
    job.run_in(JobContext(job_id=JobId(int=7), attempt=1, max_tries=5, queue=job.queue, connection="database"))
    return job
