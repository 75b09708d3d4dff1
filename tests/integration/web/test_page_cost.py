"""With 300,000 jobs, each page of the dashboard has the server read 25,000 rows at most, by the server's own count."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.metrics import Activity
from outbox.settings import Settings
from outbox.settlement import Outcome
from outbox.web import dashboard
from tests.conformance.jobs import envelopes
from tests.support.commands import fail
from tests.support.dashboards import BASE, browser, mounted, signed_in, told
from tests.support.dashboards import fill as fill_shown
from tests.support.every_engine import before_each_statement
from tests.support.many_rows import MOST_READ, fill, fill_failed, fill_finished, keep_statistics, rows_read

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
    "/jobs?state=finished",
    "/jobs?state=finished&name=tests.None",
    "/failures?queue=many",
    "/failures?error=nothing",
    "/failures/jobs",
    f"/failures/jobs?name=tests.Job&group={1:016x}",
    "/failures/jobs?error=nothing",
    "/failures/jobs?name=tests.None&queue=many",
    "/classes",
    "/classes/one?name=tests.Job",
    "/operations",
    "/operations/new?verb=cancel&queue=many",
    "/operations/new?verb=move&name=tests.None&to=other",
    f"/operations/new?verb=retry&group={1:016x}",
    "/operations/new?verb=forget&error=nothing",
    "/health",
    "/workers",
    "/schedules",
    "/keys",
    "/batches",
]
BY_COUNTS = ["/", "/queues", "/queues/many", "/health"]
"""Those that read the most where no worker has ever counted all jobs."""
OF_ONE_MOMENT = [
    "/failures/jobs?error=nothing",
    "/failures/jobs?name=tests.None",
    "/failures/jobs?error=nothing&queue=many",
    "/jobs?state=finished&name=tests.None",
]


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_pages_over_300_000_jobs_read_25_000_rows_at_most(driver: DatabaseDriver, settings: Settings) -> None:
    await fill(driver, 180_000)
    await fill(driver, 80_000, available_at="2999-01-01 00:00:00")
    await fill_failed(driver, 40_000, groups=40)
    jobs = await fill_shown(driver)
    activity = Activity()
    activity.add({Outcome.COMPLETED: 100}, [1.0] * 100, [1.0] * 100)
    await keep_statistics(driver)
    uncounted = {path: await _read(settings, path) for path in BY_COUNTS}
    assert {path: total for path, total in uncounted.items() if not 0 < total <= MOST_READ} == {}
    assert driver.metrics is not None
    await driver.metrics.write({(f"q{number}", "tests.Job"): activity for number in range(20)})
    await driver.metrics.upkeep()
    await keep_statistics(driver)
    cost = {path: await _read(settings, path) for path in [*PAGES, f"/jobs/{jobs.running}", f"/jobs/{jobs.failed}"]}
    assert cost["/jobs"] > 0, "statements are counted"
    assert {path: total for path, total in cost.items() if total > MOST_READ} == {}


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_pages_of_jobs_that_ended_in_one_moment_read_25_000_rows_at_most(
    driver: DatabaseDriver, settings: Settings
) -> None:
    """Their order is that of their ids, in which an index continues."""
    await fill(driver, 30_000, table="failed_jobs")
    await fill_finished(driver, 30_000)
    await keep_statistics(driver)
    cost = {}
    for path in OF_ONE_MOMENT:
        for page in (path, await _next(settings, path)):
            cost[page] = await _read(settings, page)
    assert {page: total for page, total in cost.items() if not 0 < total <= MOST_READ} == {}


async def _next(settings: Settings, path: str) -> str:
    """The address of the page that follows."""
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as viewer:
        found = re.search(r'<a rel="next" href="([^"]*)"', (await viewer.get(BASE + path)).text)
    assert found is not None
    return found[1].replace("&amp;", "&").removeprefix(BASE)


async def _read(settings: Settings, path: str) -> int:
    """Rows that the server reads for the page where no other view has read anything."""
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as viewer:
        with rows_read() as read:
            response = await viewer.get(BASE + path)
    assert response.status_code == 200, path
    return read.total


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize("backend", ["mysql"], indirect=True)
async def test_ten_viewers_of_long_queues_cost_what_one_costs(driver: DatabaseDriver, settings: Settings) -> None:
    await fill(driver, 30_000)
    app = mounted(dashboard(signed_in(), settings=settings))
    async with browser(app) as viewer:
        with statements("FROM queue_jobs") as by_one:
            await viewer.get(f"{BASE}/queues")
        await viewer.post(f"{BASE}/queues/other/pause", data={"connection": "database"})
        with statements("FROM queue_jobs") as by_ten:
            await asyncio.gather(*(viewer.get(f"{BASE}/queues") for _ in range(10)))
        assert len(by_ten) == len(by_one) >= 5
        await viewer.post(f"{BASE}/queues/many/pause", data={"connection": "database"})
        assert "paused" in told(await viewer.get(f"{BASE}/queues/many")), "an action is seen at once"


@contextmanager
def statements(text: str) -> Iterator[list[str]]:
    """Statements of this process that have ``text`` in them."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        found.extend([statement] if text in statement else [])

    with before_each_statement(note):
        yield found


@pytest.mark.parametrize("backend", ["mysql"], indirect=True)
async def test_failures_that_no_index_finds_come_by_parts(
    driver: DatabaseDriver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.drivers.database.operations.failed_jobs.FAILED_EXAMINED", 30)
    await fill_failed(driver, 100, groups=4)
    await fail(driver, *envelopes(2))
    found, address, pages = [], f"{BASE}/failures/jobs?name=tests.None", 0
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as viewer:
        while address:
            page = (await viewer.get(address)).text
            pages += 1
            found += re.findall(r'<th scope="row">\s*<a class="id"', page)
            link = re.search(r'<a rel="next" href="([^"]*)"', page)
            address = link[1].replace("&amp;", "&") if link else ""
        assert (len(found), pages) == (0, 4), "102 failed jobs, 30 a page"
        page = (await viewer.get(f"{BASE}/failures/jobs?error=ConnectionRefusedError")).text
        assert len(re.findall(r'<th scope="row">\s*<a class="id"', page)) == 2
