"""`GenerateReport`: the chart of a month, whole or not at all."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import db
from app.chart import draw
from app.jobs import GenerateReport, generate_report
from app.models import SensorDay
from app.settings import settings
from tests.app.rows import running


def a_day(day: date, low: float = 8.0, high: float = 12.0) -> SensorDay:
    mean = (low + high) / 2
    return SensorDay(
        sensor="roof", day=day, readings=2, total=2 * mean, total_squares=low**2 + high**2, minimum=low, maximum=high
    )


async def report(year: int, month: int) -> Path:
    job = running(GenerateReport(sensor="roof", year=year, month=month))
    await asyncio.to_thread(job.handle)
    return job.path


async def test_a_report_is_a_chart_of_its_month_alone(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[date] = []

    def draw_nothing(title: str, days: Sequence[SensorDay]) -> str:
        drawn.extend(day.day for day in days)
        return title

    monkeypatch.setattr(generate_report, "draw", draw_nothing)
    async with db.transaction() as session:
        for day in (date(2010, 11, 30), date(2010, 12, 1), date(2010, 12, 31), date(2011, 1, 1)):
            session.add(a_day(day))

    path = await report(2010, 12)

    assert path == settings().reports_dir / "roof-2010-12.svg"
    assert path.read_text() == "roof, 2010-12"
    assert drawn == [date(2010, 12, 1), date(2010, 12, 31)]


async def test_a_month_without_readings_says_so(shop: str) -> None:
    path = await report(2010, 2)

    assert "no readings" in path.read_text()


@pytest.mark.parametrize("count", [0, 1, 2, 31])
def test_a_chart_is_well_formed_whatever_it_is_given(count: int) -> None:
    chart = draw("a < b & c", [a_day(date(2010, 1, 1 + n), -3.0 - n, 4.0 + n) for n in range(count)])

    root = ET.fromstring(chart)
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "a < b & c"


def test_a_flat_day_can_be_drawn() -> None:
    assert "nan" not in draw("flat", [a_day(date(2010, 1, 1), 5.0, 5.0)])


def test_a_report_cut_off_leaves_the_old_one_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "roof-2010-01.svg"
    path.write_text("old")

    def no_space(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="no space left"):
        generate_report.write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrong", [{"month": 13}, {"month": 0}, {"sensor": "../etc"}, {"year": 9999}])
def test_a_report_about_nothing_is_refused_when_it_is_asked_for(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerateReport.model_validate({"sensor": "roof", "year": 2010, "month": 1, **wrong})
