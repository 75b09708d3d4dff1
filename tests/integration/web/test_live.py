"""What open pages cost: nothing while nobody looks, and ten of them what one costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import WorkerStatus
from outbox.errors import BackendUnavailable
from outbox.settings import Settings
from outbox.web import dashboard
from outbox.web.live import MOST_PAGES, Live
from outbox.web.stores import WebStores
from tests.conformance.jobs import envelope, envelopes
from tests.support.commands import fail
from tests.support.dashboards import BASE, browser, mounted, signed_in, told, worker
from tests.support.every_engine import before_each_statement

TOPICS = ("overview", "queues", "workers", "jobs", "failures", "schedules", "keys", "batches")


@contextmanager
def statements() -> Iterator[list[str]]:
    """What SQLAlchemy sends in the block, over any engine."""
    sent: list[str] = []

    def note(*arguments: Any) -> None:
        if arguments[2] != "BEGIN":
            sent.append(arguments[2])

    with before_each_statement(note):
        yield sent


@pytest.fixture
async def live(settings: Settings) -> AsyncIterator[Live]:
    live = Live(WebStores(settings, time_limit=60), interval=0.05)
    yield live
    assert not live.is_polling, "the last page has stopped it"


async def told_of(changed: asyncio.Event) -> None:
    async with asyncio.timeout(60):
        await changed.wait()
    changed.clear()


async def looks(live: Live, count: int = 3) -> None:
    """Wait until the poller has looked ``count`` times, which the readings that it forgets show."""
    async with asyncio.timeout(60):
        for _ in range(count):
            before = live.looked
            while live.looked == before:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("topic", TOPICS)
async def test_a_page_is_told_once_and_then_only_of_changes(live: Live, topic: str) -> None:
    async with live.open_page([topic], 0) as changed:
        await told_of(changed)
        await looks(live)
        assert not changed.is_set()


async def test_a_change_reaches_the_pages_of_its_topics_only(live: Live, driver: DatabaseDriver) -> None:
    async with live.open_page(["failures"], 0) as failures, live.open_page(["batches"], 0) as batches:
        await told_of(failures)
        await told_of(batches)
        await fail(driver, envelope())
        await told_of(failures)
        await looks(live)
        assert not batches.is_set()


async def test_heartbeats_are_no_change(live: Live, driver: DatabaseDriver) -> None:
    await driver.workers.heartbeat(worker())
    [status] = await driver.workers.all()
    async with live.open_page(["workers"], 0) as changed:
        await told_of(changed)
        await driver.workers.heartbeat(status)
        await looks(live)
        assert not changed.is_set()
        await driver.workers.heartbeat(_busy(status))
        await told_of(changed)


def _busy(status: WorkerStatus) -> WorkerStatus:
    return replace(status, processed=status.processed + 1)


async def test_one_job_has_a_topic_of_its_own(live: Live, driver: DatabaseDriver) -> None:
    job, other = envelopes(2)
    await driver.jobs.insert([job, other])
    async with live.open_page([f"job:{job.id}"], 0) as changed:
        await told_of(changed)
        await driver.jobs.cancel([other.id])
        await looks(live)
        assert not changed.is_set()
        await driver.jobs.cancel([job.id])
        await told_of(changed)


async def test_a_page_that_was_made_before_a_change_is_told(live: Live, driver: DatabaseDriver) -> None:
    async with live.open_page(["queues"], 0) as first:
        await told_of(first)
        seen = live.version
        await driver.jobs.insert([envelope()])
        await told_of(first)
        async with live.open_page(["queues"], seen) as second:
            assert second.is_set()
        async with live.open_page(["queues"], live.version) as third:
            assert not third.is_set()


async def test_nobody_looks_and_nothing_is_asked(settings: Settings, driver: DatabaseDriver) -> None:
    live = Live(WebStores(settings, time_limit=60), interval=0.01)
    await driver.jobs.get(envelope().id)
    with statements() as sent:
        assert not live.is_polling
        async with live.open_page(["queues"], 0) as changed:
            await told_of(changed)
            assert sent
        assert not live.is_polling
        sent.clear()
        await driver.jobs.get(envelope().id)
        assert len(sent) == 1, sent


async def test_ten_pages_cost_what_one_costs(settings: Settings, driver: DatabaseDriver) -> None:
    costs = []
    for pages in (1, 10):
        live = Live(WebStores(settings, time_limit=60), interval=3_600)  # one look, and none that comes too soon
        async with AsyncExitStack() as stack:
            with statements() as sent:
                events = [await stack.enter_async_context(live.open_page(["overview"], 0)) for _ in range(pages)]
                for each in events:
                    await told_of(each)
                # Between two looks, pages that were told read what one of them has read.
                await asyncio.gather(*(live.readings.overview.read() for _ in range(pages)))
            costs.append(len(sent))
        assert live.looked == 1
    assert costs[1] <= costs[0] * 1.5, costs


async def test_a_store_that_goes_away_is_news(driver: DatabaseDriver) -> None:
    settings = Settings(database_url="mysql+asyncmy://ada@127.0.0.1:1/shop")
    live = Live(WebStores(settings, time_limit=0.1), interval=0.05)
    async with live.open_page(["queues"], 0) as changed:
        await told_of(changed)
        assert live.is_polling


async def test_there_is_a_limit_of_open_pages(live: Live) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST_PAGES):
            await stack.enter_async_context(live.open_page(["queues"], 0))
        with pytest.raises(BackendUnavailable, match="open already"):
            await stack.enter_async_context(live.open_page(["queues"], 0))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("topics=queues,nothing", 400),
        ("topics=job:x", 400),
        ("topics=" + ",".join(TOPICS), 400),
        ("", 400),
        ("topics=queues&seen=-1", 400),
        ("topics=queues&seen=" + "9" * 19, 400),
        ("topics=queues&colour=red", 400),
    ],
)
async def test_bad_topics_are_refused(settings: Settings, query: str, status: int) -> None:
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        response = await client.get(f"{BASE}/live?{query}")
        assert response.status_code == status, told(response)
