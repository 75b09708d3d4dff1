"""`ProcessReading`: what it computes, and that it adds each reading once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest
from sqlalchemy import select

from app import db
from app.jobs import ProcessReading
from app.jobs.process_reading import celsius
from app.models import Reading, SensorDay
from app.statistics import Sums, is_outlier
from tests.app.rows import readings, running, stored_reading


async def process(reading: Reading) -> None:
    await asyncio.to_thread(running(ProcessReading(reading_id=reading.id)).handle)


async def days() -> list[SensorDay]:
    async with db.snapshot() as session:
        return list(await session.scalars(select(SensorDay).order_by(SensorDay.day)))


async def test_fahrenheit_becomes_celsius(shop: str) -> None:
    await process(await stored_reading(0, 50.0, "F"))
    await process(await stored_reading(1, 21.5, "C"))

    assert [reading.celsius for reading in await readings()] == [10.0, 21.5]
    assert all(reading.processed_at for reading in await readings())


async def test_a_day_adds_up(shop: str) -> None:
    for hour, value in enumerate((10.0, 14.0, 12.0)):
        await process(await stored_reading(hour, value, "C"))

    (day,) = await days()
    assert (day.sensor, day.readings, day.total, day.total_squares) == ("roof", 3, 36.0, 440.0)
    assert (day.minimum, day.maximum) == (10.0, 14.0)


async def test_a_second_run_adds_nothing(shop: str) -> None:
    reading = await stored_reading()

    for _ in range(2):
        await process(reading)

    (day,) = await days()
    assert day.readings == 1


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs go on from their first look at the reading together, unless a lock keeps the second from looking."""
    both_looked = threading.Barrier(2, timeout=0.5)

    def wait_for_the_other(value: float, unit: str) -> float:
        with suppress(threading.BrokenBarrierError):
            both_looked.wait()
        return celsius(value, unit)

    monkeypatch.setattr("app.jobs.process_reading.celsius", wait_for_the_other)


async def test_two_runs_at_once_add_the_reading_once(shop: str, side_by_side: None) -> None:
    """A zombie and the new owner of its job, both inside `handle`."""
    reading = await stored_reading()
    await asyncio.gather(process(reading), process(reading))

    (day,) = await days()
    assert day.readings == 1


async def test_the_first_two_readings_of_a_day_at_once_are_both_counted(shop: str, side_by_side: None) -> None:
    both = [await stored_reading(0, 10.0, "C"), await stored_reading(1, 20.0, "C")]
    await asyncio.gather(*map(process, both))

    (day,) = await days()
    assert (day.readings, day.total) == (2, 30.0)


async def test_what_stands_out_from_its_day_is_flagged(shop: str) -> None:
    for hour in range(8):
        await process(await stored_reading(hour, 15.0 + hour % 3, "C"))
    await process(await stored_reading(8, 85.0, "C"))
    await process(await stored_reading(9, 16.0, "C"))

    assert [reading.outlier for reading in await readings()] == [False] * 8 + [True, False]


async def test_a_reading_that_is_gone_is_nothing_to_process(shop: str) -> None:
    await asyncio.to_thread(running(ProcessReading(reading_id=4711)).handle)

    assert await days() == []


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (100.0, [20.0] * 5, False),  # too few to tell
        (25.9, [20.0] * 6, False),  # a calm day is not that calm
        (26.1, [20.0] * 6, True),
        (-6.1, [0.0] * 6, True),
        (30.0, [10.0, 20.0, 30.0] * 4, False),  # the day itself is wild
    ],
)
def test_an_outlier_is_far_from_the_others(value: float, others: list[float], expected: bool) -> None:
    values = [*others, value]

    assert is_outlier(value, Sums(len(values), sum(values), sum(v * v for v in values))) is expected
