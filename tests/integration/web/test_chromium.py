"""Real flows in Chromium: pages change while they are open, and forms work with and without JavaScript."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

import outbox
from outbox.client_state import current_client
from outbox.drivers.database import DatabaseDriver
from outbox.events import WorkerStarted
from outbox.settings import Settings
from outbox.wakeups.announce import announce_operation
from outbox.web import dashboard
from tests.conformance.jobs import envelope, envelopes
from tests.support.chromium import chromium, new_context, served
from tests.support.commands import fail
from tests.support.dashboards import BASE, MARKUP, fill, mounted, ran, signed_in, worker

pytestmark = [pytest.mark.sqlite, pytest.mark.xdist_group("chromium")]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def address(settings: Settings) -> AsyncIterator[str]:
    async with served(mounted(dashboard(signed_in(), settings=settings))) as address:
        yield address + BASE


@asynccontextmanager
async def opened(browser: Browser, address: str, **options: Any) -> AsyncIterator[Page]:
    """A page that says nothing on its console, and asks nothing of another host."""
    context = await new_context(browser, **options)
    page = await context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(address)
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []
    await context.close()


async def test_a_failure_appears_and_its_group_is_retried(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    async with opened(browser, f"{address}/failures") as page:
        await expect(page.locator("main")).to_contain_text("No failed jobs")
        await expect(page.get_by_role("link", name="Failures", exact=True)).to_have_attribute("aria-current", "page")
        await page.evaluate("window.sameDocument = true")
        await fail(driver, *envelopes(3))
        group = page.get_by_role("link", name="ConnectionRefusedError")
        await expect(group).to_be_visible()
        assert await page.evaluate("window.sameDocument"), "the page was not loaded again"
        await group.click()
        await page.get_by_text("Retry all of these…").click()
        await page.get_by_role("button", name="Retry all of these").click()
        await expect(page.get_by_role("status")).to_contain_text("Retried 3 failed jobs.")
    assert len(await driver.jobs.list_jobs()) == 3


async def test_a_queue_is_paused_while_another_page_watches(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    async with opened(browser, f"{address}/queues") as watching, opened(browser, f"{address}/queues/mail") as page:
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("status")).to_contain_text("mail is paused.")
        await expect(watching.get_by_role("row", name="mail")).to_contain_text("paused")
        await page.get_by_role("button", name="Resume").click()
        await expect(watching.get_by_role("row", name="mail")).to_contain_text("active")


async def test_what_a_person_types_and_opens_stays_while_the_page_changes(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    await fail(driver, envelope())
    async with opened(browser, f"{address}/failures/jobs") as page:
        await page.get_by_label("Name").fill("tests.")
        await page.get_by_text("Forget all…").click()
        await page.get_by_label("Name").focus()
        await fail(driver, *envelopes(2))
        await expect(page.locator("tbody tr")).to_have_count(3)
        assert await page.get_by_label("Name").input_value() == "tests."
        assert await page.evaluate("document.activeElement.name") == "name"
        await expect(page.get_by_role("button", name="Forget all")).to_be_visible()


async def test_charts_are_drawn_and_change_where_they_are(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    await driver.metrics.write({("mail", "tests.Letter"): ran(9, 1)})
    phone = {"width": 360, "height": 700}
    async with opened(browser, f"{address}/classes/one?name=tests.Letter", viewport=phone) as page:
        await expect(page.locator("canvas")).to_have_count(4)
        await expect(page.locator("figure > svg").first).to_be_hidden()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a phone"
        await page.evaluate("document.querySelector('canvas').same = true")
        async with page.expect_response("**/classes/one*"):
            await driver.workers.heartbeat(worker())
        await page.evaluate(
            "figure = document.querySelector('figure'), data = JSON.parse(figure.dataset.chart), "
            "data.lines[0].values.fill(3), figure.dataset.chart = JSON.stringify(data)"
        )
        await expect(page.locator("canvas")).to_have_count(4)
        assert await page.evaluate("document.querySelector('canvas').same"), "it was drawn over, not anew"
        await page.emulate_media(color_scheme="dark")
        await expect(page.locator("canvas")).to_have_count(4)
    async with opened(browser, address, java_script_enabled=False) as page:
        await expect(page.locator("figure > svg").first).to_be_visible()
        await page.get_by_text("Numbers").first.click()
        await expect(page.get_by_role("row", name="9")).to_be_visible()


async def test_a_job_is_dispatched_from_the_form_of_its_class(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    async with opened(browser, f"{address}/classes/one?name=tests.Letter") as page:
        await page.get_by_role("link", name="Dispatch one").click()
        await page.get_by_role("button", name="Dispatch").click()
        field = page.get_by_label("email (required)")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await field.fill("ada@example.org")
        await page.get_by_role("button", name="Dispatch").click()
        await expect(page.get_by_role("status")).to_contain_text("Dispatched")
    assert [job.name for job in await driver.jobs.list_jobs("mail")] == ["tests.Letter"]


async def test_a_bulk_operation_of_3000_jobs(browser: Browser, address: str, driver: DatabaseDriver) -> None:
    await fail(driver, *envelopes(3_000))
    async with opened(browser, f"{address}/failures/jobs?name=tests.Job") as page:
        await page.get_by_text("Retry all of these…").click()
        await page.get_by_role("button", name="Retry all of these").click()
        await expect(page.get_by_role("status")).to_contain_text("Retried 3,000 failed jobs.")


async def test_a_hidden_tab_disconnects(browser: Browser, settings: Settings, driver: DatabaseDriver) -> None:
    open_streams: set[int] = set()
    app = mounted(dashboard(signed_in(), settings=settings))

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/live"):
            await app(scope, receive, send)
            return
        open_streams.add(id(scope))
        try:
            await app(scope, receive, send)
        finally:
            open_streams.discard(id(scope))

    async with served(counting) as address, opened(browser, f"{address}{BASE}/queues") as page:
        await until(lambda: len(open_streams) == 1)
        await page.evaluate(HIDE)
        await until(lambda: len(open_streams) == 0)
        await driver.jobs.insert([envelope(queue="mail")])
        await page.evaluate(SHOW)
        await expect(page.get_by_role("row", name="mail")).to_be_visible()


HIDE = """() => {
  Object.defineProperty(document, "hidden", {value: true, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
SHOW = HIDE.replace("value: true", "value: false")


async def until(holds: Any) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.02)


async def test_forms_work_without_javascript(browser: Browser, address: str, driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(2, queue="mail"))
    async with opened(browser, f"{address}/queues/mail", java_script_enabled=False) as page:
        await page.get_by_text("Clear…").click()
        await page.get_by_role("button", name="Clear").click()
        await expect(page.get_by_role("status")).to_contain_text("Removed 2 jobs from mail.")
        await page.get_by_role("link", name="Jobs", exact=True).click()
        await page.get_by_label("Queue").fill("mail")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("main")).to_contain_text("No such jobs")


async def test_keys_of_the_keyboard(browser: Browser, address: str, driver: DatabaseDriver) -> None:
    async with opened(browser, f"{address}/jobs") as page:
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.name") == "queue"
        await page.keyboard.press("?")
        assert await page.get_by_label("Queue").input_value() == "?", "in a field, a key is a character"
        await page.locator("h1").click()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.evaluate("window.sameDocument = true")
        async with page.expect_navigation():
            await page.keyboard.press("r")
        assert not await page.evaluate("window.sameDocument")


async def test_markup_of_a_job_does_nothing_in_a_browser(
    browser: Browser, address: str, driver: DatabaseDriver
) -> None:
    jobs = await fill(driver, text=MARKUP, error=MARKUP)
    for path in (f"/jobs/{jobs.failed}", f"/jobs/{jobs.retrying}", "/failures/jobs", "/jobs"):
        async with opened(browser, address + path) as page:
            assert await page.locator("main img, main script").count() == 0
            await expect(page.locator("main")).to_contain_text("alert(1)")


@pytest.mark.parametrize("width", [360, 1280])
async def test_no_page_is_wider_than_the_screen(
    browser: Browser, address: str, driver: DatabaseDriver, width: int
) -> None:
    jobs = await fill(driver, text="x" * 3_000, error="y" * 3_000)
    paths = ("/", "/queues", "/queues/mail", "/jobs", "/failures", "/failures/jobs", "/workers", "/health")
    async with opened(browser, f"{address}/", viewport={"width": width, "height": 800}) as page:
        for path in (*paths, f"/jobs/{jobs.failed}", f"/jobs/{jobs.running}", "/schedules", "/keys", "/batches"):
            await page.goto(address + path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path


async def test_a_bulk_operation_of_3000_jobs_runs_to_its_end_while_the_page_is_open(
    browser: Browser, address: str, driver: DatabaseDriver, migrated_url: str
) -> None:
    await driver.jobs.insert(envelopes(3_000, queue="mail"))
    started = asyncio.Event()
    async with (
        outbox.Outbox(DATABASE_URL=migrated_url) as client,
        opened(browser, f"{address}/jobs?queue=mail") as page,
    ):
        client.listen(lambda _: started.set(), WorkerStarted)
        await page.get_by_role("link", name="move…").click()
        await page.get_by_label("Move to").fill("slow")
        await page.get_by_role("button", name="Preview").click()
        await expect(page.locator("main")).to_contain_text("3,000 live jobs match")
        await page.get_by_role("button", name="Move 3,000 jobs").click()
        row = page.get_by_role("row", name="move to slow")
        await expect(row).to_contain_text("waiting")
        await page.evaluate("window.sameDocument = true")
        async with client.worker(queue="nothing", sleep=0.1):
            [made] = await driver.operations.latest(1)
            await started.wait()
            announce_operation(current_client())
            await expect(row).to_contain_text("finished")
        await expect(row).to_contain_text("3,000 of 3,000")
        assert await page.evaluate("window.sameDocument"), "the page was not loaded again"
        await expect(page.get_by_role("row", name="bulk move")).to_contain_text("3,000")
    assert (await driver.operations.get(made.id)).done == 3_000  # type: ignore[union-attr]
    assert {job.queue for job in await driver.jobs.list_jobs(limit=3_000)} == {"slow"}
