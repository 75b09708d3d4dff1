"""`MonthlyReports`: a chart of the month before for each sensor."""

from __future__ import annotations

from datetime import UTC, date, datetime

from app import db
from app.jobs import MonthlyReports
from app.models import SensorDay
from outbox.drivers.values import Claim
from outbox.envelope import Headers
from outbox.ids import new_job_id
from outbox.middleware.context import load_job
from outbox.policies.base import Policies
from outbox.policies.schedule import Tick
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Fence
from tests.app.rows import queued


async def test_each_sensor_of_the_month_before_gets_its_report(shop: str) -> None:
    async with db.transaction() as session:
        for sensor, day in (("roof", 1), ("roof", 28), ("cellar", 14)):
            session.add(a_day(sensor, date(2026, 2, day)))
        session.add(a_day("roof", date(2026, 3, 1)))
        session.add(a_day("garden", date(2026, 1, 31)))
    tick = Tick(schedule="app.MonthlyReports", at=datetime(2026, 3, 1, 14, tzinfo=UTC))
    headers = Headers(tick=tick).dump()
    fence = Fence(new_job_id(), b"")
    claim = Claim(fence, "reports", MonthlyReports.name, 5, "{}", headers, 1, False, 0.0, Policies.SCHEDULE)
    job = load_job(MonthlyReports, Attempt(claim, "database", lambda _: None), 3)
    assert isinstance(job, MonthlyReports)
    await job.handle()
    assert sorted((each.name, each.payload["sensor"], each.payload["month"]) for each in await queued()) == [
        ("app.GenerateReport", "cellar", 2),
        ("app.GenerateReport", "roof", 2),
    ]


def a_day(sensor: str, day: date) -> SensorDay:
    return SensorDay(sensor=sensor, day=day, readings=1, total=10.0, total_squares=100.0, minimum=10.0, maximum=10.0)
