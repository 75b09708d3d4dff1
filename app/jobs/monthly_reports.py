"""The charts of a month, for all sensors, when it is over."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app import runlog
from app.db import transaction
from app.jobs.generate_report import GenerateReport
from app.jobs.index_reports import IndexReports
from app.models import SensorDay
from outbox import Job, dispatch_batch, schedule

SEATTLE = "America/Los_Angeles"


@schedule("0 6 1 * *", tz=SEATTLE, misfire="once", grace=86_400, overlap="skip")
class MonthlyReports(Job):
    """Dispatches the report of the month before its tick, for each sensor: all of them, or none. They are a batch: when
    all have been drawn, or nine out of ten, a page lists them.

    Whenever the job runs, a day late or a second time, the tick says which month is meant.
    """

    name = "app.MonthlyReports"
    queue = "reports"

    async def handle(self) -> None:
        tick = self.context.tick
        if tick is None:
            return  # dispatched by hand: no month is meant
        month = tick.astimezone(ZoneInfo(SEATTLE)).date().replace(day=1) - timedelta(days=1)
        with runlog.run(self):
            async with transaction() as session:
                first = month.replace(day=1)
                sensors = await session.scalars(
                    select(SensorDay.sensor).where(SensorDay.day >= first, SensorDay.day <= month).distinct()
                )
                jobs = [GenerateReport(sensor=each, year=month.year, month=month.month) for each in sensors]
                if jobs:
                    index = IndexReports(year=month.year, month=month.month)
                    name = f"reports {month:%Y-%m}"
                    await dispatch_batch(jobs, name=name, then=index, allow_failures="10%", session=session)
