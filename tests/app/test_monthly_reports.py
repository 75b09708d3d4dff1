"""`MonthlyReports`: a chart of the month before for each sensor."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import text

from app import db
from app.jobs import IndexReports, MonthlyReports
from app.models import SensorDay
from outbox.drivers.values import Claim
from outbox.envelope import Headers
from outbox.ids import new_job_id
from outbox.middleware.context import load_job
from outbox.policies.base import Policies
from outbox.policies.batch import BatchPlan
from outbox.policies.schedule import Tick
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Fence
from tests.app.rows import queued, running


async def test_each_sensor_of_the_month_before_gets_its_report(shop: str) -> None:
    async with db.transaction() as session:
        for sensor, day in (("roof", 1), ("roof", 28), ("cellar", 14)):
            session.add(a_day(sensor, date(2026, 2, day)))
        session.add(a_day("roof", date(2026, 3, 1)))
        session.add(a_day("garden", date(2026, 1, 31)))
    job = monthly(datetime(2026, 3, 1, 14, tzinfo=UTC))
    await job.handle()
    assert sorted((each.name, each.payload["sensor"], each.payload["month"]) for each in await queued()) == [
        ("app.GenerateReport", "cellar", 2),
        ("app.GenerateReport", "roof", 2),
    ]
    assert await batched() == ("reports 2026-02", 2, "app.IndexReports")


async def batched() -> tuple[str, int, str]:
    async with db.transaction() as session:
        [(name, total, plan)] = await session.execute(text("SELECT name, total, plan FROM queue_batches"))
    then = BatchPlan.model_validate_json(plan).then
    assert then is not None
    return name, total, then.job.name


async def test_a_month_without_sensors_has_no_batch(shop: str) -> None:
    await monthly(datetime(2026, 3, 1, 14, tzinfo=UTC)).handle()
    assert await queued() == []


def test_the_page_lists_the_charts_of_its_month(shop: str) -> None:
    job = running(IndexReports(year=2026, month=2))
    directory = job.path.parent
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("roof-2026-02.svg", "cellar-2026-02.svg", "roof-2026-03.svg"):
        (directory / name).write_text("a chart")
    job.handle()
    page = job.path.read_text()
    assert page.index("cellar-2026-02.svg") < page.index("roof-2026-02.svg")
    assert "2026-03" not in page


def monthly(at: datetime) -> MonthlyReports:
    headers = Headers(tick=Tick(schedule="app.MonthlyReports", at=at)).dump()
    fence = Fence(new_job_id(), b"")
    claim = Claim(fence, "reports", MonthlyReports.name, 5, "{}", headers, 1, False, 0.0, Policies.SCHEDULE)
    job = load_job(MonthlyReports, Attempt(claim, "database", lambda _: None), 3)
    assert isinstance(job, MonthlyReports)
    return job


def a_day(sensor: str, day: date) -> SensorDay:
    return SensorDay(sensor=sensor, day=day, readings=1, total=10.0, total_squares=100.0, minimum=10.0, maximum=10.0)
