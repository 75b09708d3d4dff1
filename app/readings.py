"""Readings: written together with the jobs that process them, once however often they arrive."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import ProcessReading
from app.models import Reading
from outbox import JobId, dispatch_many

Key = tuple[str, datetime]
SENSOR = r"^[A-Za-z0-9_-]{1,64}$"


class Measurement(BaseModel):
    """What a sensor says."""

    measured_at: AwareDatetime
    value: float = Field(allow_inf_nan=False, ge=-1000, le=1000)
    unit: Literal["C", "F"]


class NewReading(Measurement):
    """A measurement, and which sensor made it."""

    sensor: str = Field(pattern=SENSOR)

    @property
    def key(self) -> Key:
        return self.sensor, self.measured_at


async def record(session: AsyncSession, arrived: Sequence[NewReading]) -> list[JobId]:
    """Write the readings that are not there yet, and dispatch a job for each of these, in their order.

    In the caller's transaction. Two callers with the same reading at the same moment both find it
    missing: the unique key then fails one of them with an IntegrityError, and its second try finds it.
    """
    fresh = {reading.key: reading for reading in arrived}
    for key in await stored(session, list(fresh)):
        del fresh[key]
    rows = [Reading(**reading.model_dump()) for reading in fresh.values()]
    session.add_all(rows)
    await session.flush()
    jobs = [ProcessReading(reading_id=row.id, sensor=row.sensor) for row in rows]
    return await dispatch_many(jobs, session=session) if jobs else []


async def stored(session: AsyncSession, keys: Sequence[Key]) -> list[Key]:
    """Those of these readings that are there already, committed or in this transaction."""
    columns = Reading.sensor, Reading.measured_at
    found = await session.execute(select(*columns).where(tuple_(*columns).in_(keys)))
    return [(sensor, measured_at) for sensor, measured_at in found]
