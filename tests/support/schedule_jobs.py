"""Jobs of schedules, and the schedules of a test's database at chosen times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.schedules import StoredSchedule
from outbox.envelope import Headers
from outbox.policies.schedule import Definition, Tick, check_definition
from outbox.schedules import definition_of_job
from tests.servers import sql


class Digest(Job):
    tenant: int = 0

    async def handle(self) -> None: ...


def definition(when: str = "1h", **options: Any) -> Definition:
    values = {"every": None, "tz": "UTC", "misfire": "once", "grace": 3600, "overlap": "allow", "jitter": 0}
    return definition_of_job(Digest(tenant=7), check_definition(when, **(values | options)), {})


def set_next(driver: DatabaseDriver, url: str, name: str, next_at: datetime) -> None:
    """As if the schedule had been due since then."""
    with sql.connection(url) as connection:
        connection.execute(
            text("UPDATE queue_schedules SET next_at = :at WHERE name = :name"),
            {"at": driver.database.dialect.timestamp(next_at), "name": name},
        )
        connection.commit()


async def put_due(driver: DatabaseDriver, url: str, name: str = "digest", ago: float = 0.0, **options: Any) -> datetime:
    """A schedule that is due since its tick of ``ago`` seconds ago; that tick."""
    chosen = definition(**options)
    await driver.schedules.put(name, chosen)
    tick = chosen.timetable.until(await driver.now() - timedelta(seconds=ago))
    assert tick is not None
    set_next(driver, url, name, tick)
    return tick


async def ticks(driver: DatabaseDriver) -> list[Tick]:
    """Those of the live jobs, in their order."""
    found = [Headers.load(job.headers).tick for job in await driver.jobs.list_jobs()]
    return sorted((tick for tick in found if tick is not None), key=lambda tick: (tick.schedule, tick.at))


async def stored(driver: DatabaseDriver, name: str = "digest") -> StoredSchedule:
    found = await driver.schedules.get(name)
    assert found is not None
    return found


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def at(found: Sequence[Tick]) -> list[datetime]:
    return [tick.at for tick in found]
