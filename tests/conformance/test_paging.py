"""Pages of live jobs: every job once, in the order of claims, through any filter, wherever a page ends."""

from __future__ import annotations

import json

import pytest

from outbox.drivers import filters
from outbox.drivers.base import Driver
from outbox.drivers.filters import JobFilter, JobPlace
from outbox.drivers.values import JobState, StoredJob
from outbox.errors import InvalidOption
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes


async def walk(driver: Driver, matching: JobFilter, limit: int) -> list[StoredJob]:
    """All pages, one after the other. The place between two of them is handed on as text."""
    found: list[StoredJob] = []
    after: JobPlace | None = None
    for _ in range(200):
        page = await driver.jobs.page(matching, limit, after)
        assert len(page.jobs) <= limit
        found += page.jobs
        if page.next is None:
            return found
        after = JobPlace.parse(str(page.next))
    raise AssertionError("the pages come to no end")


async def fill(driver: Driver) -> None:
    """Jobs of two queues, three priorities and two names, in every state; many of one moment."""
    for queue in ("a", "b"):
        await driver.jobs.insert(envelopes(7, queue=queue))
        await driver.jobs.insert([envelope(queue=queue, priority=0, delay=60), envelope(queue=queue, priority=9)])
        await driver.jobs.insert([envelope(queue=queue)._replace(name="tests.Rare")])
        retried = await claim_one(driver, queue)
        await driver.jobs.settle([Settlement.retried(retried.fence, 60, FAILURE)])
        await claim_one(driver, queue)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_are_the_whole_list_in_order(driver: Driver, limit: int) -> None:
    await fill(driver)
    everything = await driver.jobs.list_jobs(limit=1_000)
    assert await walk(driver, JobFilter(), limit) == everything
    assert await walk(driver, JobFilter(queue="b"), limit) == [job for job in everything if job.queue == "b"]


@pytest.mark.parametrize("limit", [1, 100])
@pytest.mark.parametrize("queue", [None, "a"])
@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PARKED])
async def test_a_state_is_filtered(driver: Driver, state: JobState, queue: str | None, limit: int) -> None:
    await fill(driver)
    expected = [
        job for job in await driver.jobs.list_jobs(limit=1_000) if job.state is state and queue in {None, job.queue}
    ]
    assert len(expected) == (1 if state is not JobState.READY else 7) * (2 if queue is None else 1)
    assert await walk(driver, JobFilter(queue, state=state), limit) == expected


async def test_a_name_is_filtered(driver: Driver) -> None:
    await fill(driver)
    rare = await walk(driver, JobFilter(name="tests.Rare"), 10)
    assert [(job.queue, job.name) for job in rare] == [("a", "tests.Rare"), ("b", "tests.Rare")]
    assert await walk(driver, JobFilter(name="tests.Rar"), 10) == []


@pytest.mark.parametrize("kind", ["ordering", "concurrency", "fair"])
async def test_a_key_is_filtered(driver: Driver, kind: str) -> None:
    key = json.dumps({"scope": "tests.Job", "name": "customer:7", "limit": 1})
    other = key.replace("customer:7", "customer:77")
    keyed = [
        envelope(queue=queue, delay=60)._replace(headers=f'{{"keys": {{"{kind}": {headers}}}}}')
        for queue in ("a", "b")
        for headers in (key, other)
    ]
    plain = envelope(queue="a")._replace(headers='{"max_tries": 1, "trace": {"name": "customer:7"}}')
    await driver.jobs.insert([*keyed, plain, envelope(queue="a")])
    found = await walk(driver, JobFilter(key="customer:7"), 1)
    assert [job.id for job in found] == [keyed[0].id, keyed[2].id]
    assert [job.id for job in await walk(driver, JobFilter(queue="b", key="customer:77"), 10)] == [keyed[3].id]
    assert await walk(driver, JobFilter(key="Customer:7"), 10) == []


async def test_a_page_goes_on_where_the_last_one_ended_although_its_last_job_is_gone(driver: Driver) -> None:
    await driver.jobs.insert(envelopes(6))
    first = await driver.jobs.page(JobFilter(), 3)
    await driver.jobs.cancel([job.id for job in first.jobs])
    second = await driver.jobs.page(JobFilter(), 10, first.next)
    assert [job.id for job in second.jobs] == [job.id for job in await driver.jobs.list_jobs()]


async def test_a_page_that_finds_too_little_ends_and_can_be_gone_on_from(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("database", "redis"):
        monkeypatch.setattr(f"outbox.drivers.{module}.operations.job_pages.EXAMINED_PER_PAGE", 10)
    assert filters.EXAMINED_PER_PAGE > 10
    await driver.jobs.insert(envelopes(25))
    await driver.jobs.insert([envelope(priority=9)._replace(name="tests.Rare")])
    page = await driver.jobs.page(JobFilter(name="tests.Rare"), 5)
    assert (page.jobs, page.next is None) == ([], False)
    assert [job.name for job in await walk(driver, JobFilter(name="tests.Rare"), 5)] == ["tests.Rare"]


@pytest.mark.parametrize("text", ["", "default", "default:5:x:y", "a:b:c:d:e", "default:5:99999999999999999999:0"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="no place"):
        JobPlace.parse(text)
