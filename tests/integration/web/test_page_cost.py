"""With 300,000 jobs, each page of the dashboard has the server read 25,000 rows at most, by the server's own count."""

from __future__ import annotations

import httpx
import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import Activity
from outbox.settlement import Outcome
from tests.support.dashboards import BASE
from tests.support.dashboards import fill as fill_shown
from tests.support.many_rows import MOST_READ, fill, fill_failed, rows_read

PAGES = [
    "/",
    "/queues",
    "/queues/many",
    "/jobs",
    "/jobs?queue=many&state=ready",
    "/jobs?queue=many&state=delayed",
    "/jobs?state=running",
    "/jobs?name=tests.None",
    "/failures",
    "/failures?since=2h",
    "/failures/jobs",
    f"/failures/jobs?name=tests.Job&group={1:016x}",
    "/workers",
    "/schedules",
    "/keys",
    "/batches",
]


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_pages_over_300_000_jobs_read_25_000_rows_at_most(
    driver: DatabaseDriver, admin: httpx.AsyncClient
) -> None:
    await fill(driver, 180_000)
    await fill(driver, 80_000, available_at="2999-01-01 00:00:00")
    await fill_failed(driver, 40_000, groups=40)
    jobs = await fill_shown(driver)
    activity = Activity()
    activity.add([Outcome.COMPLETED] * 100, [1.0] * 100, [1.0] * 100)
    assert driver.metrics is not None
    await driver.metrics.write({(f"q{number}", "tests.Job"): activity for number in range(20)})
    await driver.metrics.upkeep()
    cost = {}
    for path in [*PAGES, f"/jobs/{jobs.running}", f"/jobs/{jobs.failed}"]:
        with rows_read() as read:
            response = await admin.get(BASE + path)
        assert response.status_code == 200, path
        cost[path] = read.total
    assert cost["/jobs"] > 0, "statements are counted"
    assert {path: total for path, total in cost.items() if total > MOST_READ} == {}
