"""Sums per sensor and day, kept as the readings come in, and what stands out from them."""

from datetime import date
from functools import cache
from math import sqrt
from typing import NamedTuple

from sqlalchemy import BindParameter, Date, Double, String, bindparam, func, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.orm import Session

from app.models import SensorDay

ENOUGH = 6  # readings of a day before anything can be said to stand out
SIGMAS = 4.0  # distance from the mean, in standard deviations
LEAST_SPREAD = 1.5  # degrees: a calm day's spread is so small that a breeze would be an alarm

_TABLE = SensorDay.metadata.tables[SensorDay.__tablename__]
_SENSOR: BindParameter[str] = bindparam("of_sensor", type_=String)
_DAY: BindParameter[date] = bindparam("of_day", type_=Date)
_VALUE: BindParameter[float] = bindparam("value", type_=Double)
_SUMS = select(_TABLE.c.readings, _TABLE.c.total, _TABLE.c.total_squares).where(
    _TABLE.c.sensor == _SENSOR, _TABLE.c.day == _DAY
)


class Sums(NamedTuple):
    """A day's readings so far: how many, their sum, and the sum of their squares."""

    readings: int
    total: float
    total_squares: float


def add_to_day(session: Session, sensor: str, day: date, value: float) -> Sums:
    """Add one value to its day, and return the day's sums with the value in them.

    One statement inserts or adds, so that two workers with the first two readings of a day neither
    collide nor overwrite each other. The row stays locked until the transaction ends.
    """
    key = {"of_sensor": sensor, "of_day": day}
    session.execute(_upsert(session.get_bind().dialect.name), {**key, "value": value})
    return Sums(*session.execute(_SUMS, key).one())


def is_outlier(value: float, day: Sums) -> bool:
    """Whether `value`, already counted in `day`, stands out from the day's other readings."""
    others = day.readings - 1
    if others < ENOUGH:
        return False
    mean = (day.total - value) / others
    variance = (day.total_squares - value * value) / others - mean * mean
    spread = max(sqrt(max(variance, 0.0)), LEAST_SPREAD)  # rounding can leave a variance below zero
    return abs(value - mean) > SIGMAS * spread


@cache
def _upsert(dialect: str) -> sqlite.Insert | mysql.Insert:
    first = {
        "sensor": _SENSOR,
        "day": _DAY,
        "readings": 1,
        "total": _VALUE,
        "total_squares": _VALUE * _VALUE,
        "minimum": _VALUE,
        "maximum": _VALUE,
    }
    # "The smaller of two" is min() in SQLite and LEAST() in MySQL, whose MIN() only aggregates.
    is_sqlite = dialect == "sqlite"
    least, greatest = (func.min, func.max) if is_sqlite else (func.least, func.greatest)
    more = {
        "readings": _TABLE.c.readings + 1,
        "total": _TABLE.c.total + _VALUE,
        "total_squares": _TABLE.c.total_squares + _VALUE * _VALUE,
        "minimum": least(_TABLE.c.minimum, _VALUE),
        "maximum": greatest(_TABLE.c.maximum, _VALUE),
    }
    if is_sqlite:
        return sqlite.insert(_TABLE).values(first).on_conflict_do_update(index_elements=["sensor", "day"], set_=more)
    return mysql.insert(_TABLE).values(first).on_duplicate_key_update(more)
