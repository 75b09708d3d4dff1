"""With 100,000 rows of a policy, a page of the dashboard has the server read 25,000 rows at most, by its own count."""

from __future__ import annotations

import re

import pytest

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import JobState
from outbox.envelope import serialize
from outbox.settings import Settings
from outbox.web import dashboard
from tests.support.dashboards import BASE, browser, mounted, signed_in
from tests.support.many_policy_rows import block_keys, fill_batches, fill_behind_keys, fill_waits
from tests.support.many_rows import MOST_READ, fill, keep_statistics, rows_read

pytestmark = pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)


class Step(Job):
    ordering_key = "customer_id"
    customer_id: int

    async def handle(self) -> None: ...


async def read(settings: Settings, path: str) -> tuple[str, int]:
    """A page, and how many rows the server has read for it where no other view has read anything."""
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as viewer:
        with rows_read() as found:
            response = await viewer.get(BASE + path)
    assert response.status_code == 200, path
    return response.text, found.total


async def test_jobs_behind_100_000_others_of_their_key(driver: DatabaseDriver, settings: Settings) -> None:
    jobs = [serialize(Step(customer_id=1)) for _ in range(60)]
    await driver.jobs.insert(jobs)
    await driver.jobs.claim(["default"], 60, 30)
    await fill_behind_keys(driver, 100_000)
    await keep_statistics(driver)
    stored = await driver.jobs.get(jobs[-1].id)
    assert stored is not None
    assert stored.state is JobState.PARKED
    for path in ("/jobs?queue=default&state=parked", f"/jobs/{stored.id}"):
        page, cost = await read(settings, path)
        assert 0 < cost <= MOST_READ, path
        assert "runs one job at a time, 100 or more ahead" in page


async def test_keys_that_some_of_30_000_failed_jobs_block(driver: DatabaseDriver, settings: Settings) -> None:
    await fill(driver, 30_000, table="failed_jobs")
    await block_keys(driver)
    assert driver.metrics is not None
    await driver.metrics.upkeep()
    async with driver.database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT COUNT(*) FROM queue_keyed_jobs WHERE state = 3")
        blocked = rows.scalar_one()
    assert blocked >= 100
    await keep_statistics(driver)
    page, cost = await read(settings, "/")
    assert 0 < cost <= MOST_READ
    assert "blocked by failed jobs among the latest" in page
    found, address = set(), "/keys"
    while address:
        page, cost = await read(settings, address)
        assert 0 < cost <= MOST_READ, address
        found |= set(re.findall(r"\b[0-9A-F]{32}\b", page))
        link = re.search(r'<a rel="next" href="([^"]*)"', page)
        address = link[1].replace("&amp;", "&").removeprefix(BASE) if link else ""
    assert len(found) == blocked


async def test_limits_of_3_000_keys_that_100_000_jobs_wait_for(driver: DatabaseDriver, settings: Settings) -> None:
    await fill_waits(driver, 100_000, rates=3_000)
    await keep_statistics(driver)
    page, cost = await read(settings, "/keys")
    assert 0 < cost <= MOST_READ
    assert page.count("tests.Paced") >= 200
    assert "at most 200 limits are shown" in page


async def test_batches_of_many_members(driver: DatabaseDriver, settings: Settings) -> None:
    await fill_batches(driver, 49, outstanding=2_000, failed=2_000)
    batch_id = await fill_batches(driver, 1, outstanding=50_000, failed=50_000)
    await keep_statistics(driver)
    page, cost = await read(settings, "/batches")
    assert 0 < cost <= MOST_READ
    assert page.count("100 or more") == 100
    page, cost = await read(settings, f"/batches/{batch_id}")
    assert 0 < cost <= MOST_READ
    assert "1,000+" in page
    assert "10,000+" in page
