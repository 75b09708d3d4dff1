"""axe-core finds nothing on any page, in both themes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.settings import Settings
from outbox.web import dashboard
from tests.support.chromium import chromium, new_context, served
from tests.support.dashboards import BASE, Letter, fill, mounted, ran, signed_in

# Ninety looks of axe at a page: a second and more for each on a busy machine.
pytestmark = [pytest.mark.sqlite, pytest.mark.xdist_group("chromium"), pytest.mark.timeout(900)]

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


THEMES: dict[Literal["light", "dark"], dict[str, Any]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast", "link-in-text-block"]},
}
"""The rules for each: a theme is nothing but colours."""

RUN = """async options => {
    const found = await axe.run(document, {...options, resultTypes: ["violations"]});
    return found.violations;
}"""
"""What axe is content with is a lot of text, and to hand it over takes longer than to look."""

Violations = Callable[[Iterable[str]], Awaitable[list[str]]]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def violations(browser: Browser, settings: Settings) -> AsyncIterator[Violations]:
    """What axe finds on pages, by their paths."""
    app = mounted(dashboard(signed_in(), settings=settings))
    async with served(app) as address:
        # The policy of the pages allows no script of the test. Colours are looked at when they have stopped to change.
        context = await new_context(browser, bypass_csp=True, reduced_motion="reduce")
        page = await context.new_page()

        async def of(paths: Iterable[str]) -> list[str]:
            found: list[str] = []
            for path in paths:
                await page.emulate_media(color_scheme="light")
                await page.goto(address + BASE + path)
                await page.add_script_tag(content=AXE.read_text())
                for theme, options in THEMES.items():
                    await page.emulate_media(color_scheme=theme)
                    result = await page.evaluate(RUN, options)
                    found += [f"{path}, {theme}: {told(each)}" for each in result]
            return found

        yield of


def told(violation: dict[str, Any]) -> tuple[str, str, list[str]]:
    return violation["id"], violation["help"], [node["html"] for node in violation["nodes"]]


async def test_no_page_without_jobs_has_a_violation(violations: Violations) -> None:
    assert await violations(PAGES) == []


async def test_no_page_has_a_violation(violations: Violations, settings: Settings, driver: DatabaseDriver) -> None:
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
    of_jobs = (*(f"/jobs/{each}" for each in ids), f"/jobs/{jobs.failed}/copy")
    assert await violations((*PAGES, *of_jobs, *others)) == []
