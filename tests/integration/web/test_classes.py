"""Job classes: what their jobs did, their options, and the form that dispatches one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import MetricPoint
from outbox.envelope import serialize
from outbox.settings import Settings
from outbox.web import dashboard
from outbox.web.charts import durations, sparkline, throughput
from outbox.web.trends import Trend, failure_rate, time_to_clear
from tests.support.dashboards import BASE, MARKUP, browser, mounted, ran, signed_in, told

PATH = f"{BASE}/classes/dispatch"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Paint(outbox.Job):
    name = "tests.Paint"
    queue = "paint"
    priority = 2
    max_tries = 7
    backoff = [1, 5]  # noqa: RUF012 - as applications write it
    unique = ("number",)

    number: int
    colour: Colour
    glossy: bool = False
    note: str | None = None
    layers: list[int] = []  # noqa: RUF012 - pydantic copies it

    async def handle(self) -> None: ...


async def test_a_class_shows_what_its_jobs_did(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await driver.metrics.write({("paint", Paint.name): ran(3, 1), ("mail", "tests.Unknown<b>"): ran(1)})
    listed = told(await admin.get(f"{BASE}/classes"))
    assert "tests.Paint" in listed
    assert "25.0%" in listed
    shown = told(await admin.get(f"{BASE}/classes/one?name=tests.Paint"))
    for each in ("max_tries 7", "backoff 1, 5", "unique number", "queue paint", "red, blue", "Attempts a minute"):
        assert each in shown, each
    queue = told(await admin.get(f"{BASE}/queues/paint"))
    assert "Completed, last hour 3" in queue
    unknown = await admin.get(f"{BASE}/classes/one", params={"name": "tests.Unknown<b>"})
    assert "OUTBOX_JOBS" in told(unknown)
    assert "<b>" not in unknown.text
    assert (await admin.get(f"{BASE}/classes/one?name=tests.None")).status_code == 404


async def test_the_form_of_a_class_is_checked_by_it(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    form = await admin.get(f"{PATH}?name=tests.Paint")
    for field in ("field.number", "field.colour", "field.glossy", "field.note", "field.layers"):
        assert f'name="{field}"' in form.text

    async def send(**fields: Any) -> httpx.Response:
        given = {f"field.{name}": str(value) for name, value in fields.items() if name not in ("queue", "delay")}
        others = {name: fields[name] for name in ("queue", "delay") if name in fields}
        return await admin.post(PATH, data={"connection": "database", "name": "tests.Paint"} | given | others)

    wrong = await send(number="many", colour="green", layers='[1, "two"]', note=MARKUP)
    page = told(wrong)
    assert wrong.status_code == 200
    assert "valid integer" in page
    assert "'red' or 'blue'" in page
    assert "(at 1)" in page, "where in the list"
    assert 'value="many"' in wrong.text, "what was given stays"
    assert MARKUP not in wrong.text
    assert "is a time such as" in told(await send(number=1, colour="red", delay="soon"))
    assert await driver.jobs.list_jobs() == []
    done = await send(number=7, colour="blue", glossy="true", note="7", layers="[1, 2]", queue="urgent")
    assert done.status_code == 303
    [job] = await driver.jobs.list_jobs("urgent")
    assert json.loads(job.payload) == {"number": 7, "colour": "blue", "glossy": True, "note": "7", "layers": [1, 2]}
    again = await send(number=7, colour="red")
    assert "No job was made" in told(await admin.get(again.headers["location"]))
    unknown = await admin.post(PATH, data={"connection": "database", "name": "tests.None"})
    assert (unknown.status_code, "OUTBOX_JOBS" in told(unknown)) == (400, True)


async def test_a_class_is_paused_and_resumed(driver: DatabaseDriver, admin: httpx.AsyncClient) -> None:
    await driver.jobs.insert([serialize(Paint(number=1, colour=Colour.RED))])
    fields = {"connection": "database", "name": Paint.name}
    await admin.post(f"{BASE}/classes/pause", data=fields | {"reason": "wet walls", "for": "2h"})
    page = told(await admin.get(f"{BASE}/classes/one?name=tests.Paint"))
    for each in ("Paused", "by Ada", "wet walls", "Resume"):
        assert each in page
    assert await driver.jobs.claim(["paint"], 1, 30) == []
    again = await admin.post(f"{BASE}/classes/pause", data=fields)
    assert "was paused already" in told(await admin.get(again.headers["location"]))
    await admin.post(f"{BASE}/classes/resume", data=fields)
    assert len(await driver.jobs.claim(["paint"], 1, 30)) == 1
    assert "Paused" not in told(await admin.get(f"{BASE}/classes/one?name=tests.Paint"))
    for given in ({"for": "soon"}, {"reason": "x" * 300}):
        assert (await admin.post(f"{BASE}/classes/pause", data=fields | given)).status_code == 400


async def test_what_is_read_of_metrics_is_kept_for_a_while(driver: DatabaseDriver, settings: Settings) -> None:
    """Workers write once a minute, and a day of them is many rows."""
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        assert "nothing yet" in told(await client.get(f"{BASE}/"))
        await driver.metrics.write({("paint", Paint.name): ran(3)})
        assert "nothing yet" in told(await client.get(f"{BASE}/"))


def point(at: datetime, completed: int, failed: int) -> MetricPoint:
    activity = ran(completed, failed)
    return MetricPoint(at, 60, "a", "Job", dict(activity.settled), activity.wait, activity.run)


def test_charts_have_a_place_for_each_minute() -> None:
    now = datetime(2026, 3, 2, 7, 30, 12, tzinfo=UTC)
    points = tuple(point(datetime(2026, 3, 2, 7, minute, tzinfo=UTC), 10, 2) for minute in (10, 11, 30))
    trend = Trend(now, points, points)
    hour, day = throughput(trend)
    assert [len(hour.times), len(day.times)] == [60, 144]
    assert hour.times[-1] == datetime(2026, 3, 2, 7, 30, tzinfo=UTC).timestamp()
    assert [line.values[-1] for line in hour.lines] == [10, 0, 2]
    assert [line.values[-2] for line in hour.lines] == [0, 0, 0]
    assert [sum(value or 0 for value in line.values) for line in day.lines] == [30, 0, 6]
    assert [at.minute for at, _ in hour.rows] == [10, 11, 30]
    timings, _ = durations(trend)
    assert timings.lines[0].values[-2] is None, "no time where nothing ran"
    assert str(timings.svg).count("<polyline") == 8, "one for each stretch"
    assert "30 completed, 6 attempts failed" in str(sparkline(trend))
    assert failure_rate(trend.last_hour) == 6 / 36
    assert failure_rate(Trend(now).last_hour) is None
    assert throughput(Trend(now, is_kept=False)) == ()
    assert time_to_clear(trend, 0, 0) == 0
    assert time_to_clear(trend, 10, 0) is None
    assert time_to_clear(trend, 10, 2) == 10
