"""axe-core finds nothing on any page, in both themes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.settings import Settings
from outbox.web import dashboard
from tests.support.chromium import chromium, served
from tests.support.dashboards import BASE, Letter, fill, mounted, ran, signed_in

pytestmark = [pytest.mark.sqlite, pytest.mark.xdist_group("chromium"), pytest.mark.timeout(120)]

AXE = Path(__file__).parents[2] / "support" / "axe" / "axe.min.js"
PAGES = (
    "/",
    "/queues",
    "/jobs",
    "/failures",
    "/failures/jobs",
    "/classes",
    "/workers",
    "/schedules",
    "/keys",
    "/batches",
    "/operations",
    "/operations/new?verb=cancel",
    "/health",
)


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_has_a_violation(
    browser: Browser, settings: Settings, driver: DatabaseDriver, theme: Any
) -> None:
    app = mounted(dashboard(signed_in(), settings=settings, time_limit=30))
    async with served(app) as address:
        # The policy of the pages allows no script of the test.
        context = await browser.new_context(color_scheme=theme, bypass_csp=True)
        page = await context.new_page()

        violations: set[str] = set()

        async def check(path: str) -> None:
            await page.goto(address + BASE + path)
            await page.add_script_tag(content=AXE.read_text())
            found = await page.evaluate("axe.run(document)")
            told = [
                (each["id"], each["help"], [node["html"] for node in each["nodes"]]) for each in found["violations"]
            ]
            violations.update({f"{path}: {told}"} if told else set())

        for path in PAGES:
            await check(path)
        jobs = await fill(driver)
        await driver.queues.pause("mail")
        await driver.limits.set("tests.Letter", concurrency=3)
        async with outbox.Outbox(settings):
            batch = await outbox.dispatch_batch([Letter(email="a@b.c")], name="letters")
            await outbox.schedules.add("report", "0 7 * * *", Letter(email="a@b.c"))
        ids = (jobs.ready, jobs.delayed, jobs.running, jobs.retrying, jobs.failed)
        await driver.metrics.write({("mail", Letter.name): ran(9, 1)})
        classes = ("/classes/one?name=tests.Letter", "/classes/dispatch?name=tests.Letter")
        others = (
            *classes,
            "/queues/mail",
            f"/batches/{batch}",
            "/schedules/one?name=report",
            "/jobs?colour=red",
            "/nothing",
        )
        for path in (*PAGES, *(f"/jobs/{each}" for each in ids), f"/jobs/{jobs.failed}/copy", *others):
            await check(path)
        assert not violations, "\n".join(sorted(violations))
