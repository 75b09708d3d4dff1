"""A sensor reading, cleaned and added to its day."""

import logging

from sqlalchemy import BindParameter, bindparam, select, update
from sqlalchemy.orm import Session

from app import runlog
from app.db import blocking_transaction
from app.models import Reading, now
from app.statistics import add_to_day, is_outlier
from outbox import Job

log = logging.getLogger(__name__)

# Built once: building a statement anew for each reading would take longer than running it, and on SQLite
# every other writer would be waiting meanwhile.
_TABLE = Reading.metadata.tables[Reading.__tablename__]
_ID: BindParameter[int] = bindparam("reading_id")
_LOCKED = select(_TABLE).where(_TABLE.c.id == _ID).with_for_update()
_PROCESSED = (
    update(_TABLE)
    .where(_TABLE.c.id == _ID)
    .values(celsius=bindparam("in_celsius"), outlier=bindparam("stands_out"), processed_at=bindparam("at"))
)


class ProcessReading(Job):
    """Converts a reading to Celsius, flags it if it stands out, adds it to the sums of its day.

    Readings of a sensor are processed in their order, since one stands out from those before it. Sensors
    do not wait for each other, and one reading that fails for good does not stop its sensor.

    The mark on the reading and the sums are one transaction, so a second run adds nothing. It computes and
    waits for nobody but the database: a plain function, which outbox runs in a thread.
    """

    name = "app.ProcessReading"
    queue = "default"
    max_tries = 5
    timeout = 60
    backoff = (1, 5, 30)
    ordering_key = "sensor"
    on_failed = "skip"

    reading_id: int
    sensor: str | None = None  # of jobs that were dispatched before it was a field: they have no order

    def handle(self) -> None:
        with runlog.run(self), blocking_transaction() as session:
            self._process(session)

    def _process(self, session: Session) -> None:
        # The lock is for a run that lost its lease and does not know it yet: without it, both would find
        # the reading unprocessed and add it twice.
        reading = session.execute(_LOCKED, {"reading_id": self.reading_id}).one_or_none()
        if reading is None:
            log.warning("reading %d is gone: nothing to process", self.reading_id)
        elif reading.processed_at is None:
            value = celsius(reading.value, reading.unit)
            day = add_to_day(session, reading.sensor, reading.measured_at.date(), value)
            marks = {"in_celsius": value, "stands_out": is_outlier(value, day), "at": now()}
            session.execute(_PROCESSED, {"reading_id": self.reading_id, **marks})


def celsius(value: float, unit: str) -> float:
    """`value` in degrees Celsius, to a hundredth, which is finer than any sensor here measures."""
    return round((value - 32) / 1.8 if unit == "F" else value, 2)
