"""A chart of a sensor's month, which takes its time."""

import os
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pydantic import Field
from sqlalchemy import select

from app import runlog
from app.chart import draw
from app.db import blocking_snapshot
from app.models import SensorDay
from app.settings import settings
from outbox import Job


class GenerateReport(Job):
    """Writes `<sensor>-<year>-<month>.svg` into the reports' directory.

    A plain function: outbox runs it in a thread, and goes on extending the job's lease meanwhile.
    """

    name = "app.GenerateReport"
    queue = "reports"
    max_tries = 3
    timeout = 900
    backoff = 10

    sensor: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    year: int = Field(ge=1900, le=9998)
    month: int = Field(ge=1, le=12)

    def handle(self) -> None:
        with runlog.run(self):
            days = self._days()
            time.sleep(settings().report_seconds)
            write_atomically(self.path, draw(f"{self.sensor}, {self.year}-{self.month:02}", days))

    @property
    def path(self) -> Path:
        return settings().reports_dir / f"{self.sensor}-{self.year}-{self.month:02}.svg"

    def _days(self) -> Sequence[SensorDay]:
        first = date(self.year, self.month, 1)
        after = date(self.year + self.month // 12, self.month % 12 + 1, 1)
        with blocking_snapshot() as session:
            days = session.scalars(
                select(SensorDay)
                .where(SensorDay.sensor == self.sensor)
                .where(SensorDay.day >= first, SensorDay.day < after)
                .order_by(SensorDay.day)
            )
            return days.all()


def write_atomically(path: Path, text: str) -> None:
    """Whoever looks sees the old file or the new one, never half of one, even if we die here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide the report from the web server
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
