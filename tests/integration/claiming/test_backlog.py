"""Claims of a backlog search the one lane where it is, and still take what is to be preferred to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.counters import reads
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.claim_scan.scan_cost import ScanCost
from outbox.drivers.values import Claim
from outbox.settlement import Settlement
from tests.conformance.jobs import envelope, envelopes
from tests.servers.sql import connection


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url, pool_size=1)
    await driver.jobs.insert(envelopes(100))
    await take(driver, 10)
    yield driver
    await driver.close()


async def take(driver: DatabaseDriver, count: int, *queues: str) -> list[Claim]:
    claims = await driver.short_jobs.claim(queues or ["default"], count, 60)
    await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    return claims


def numbers(claims: list[Claim]) -> list[int]:
    return [int(claim.payload.strip("{}").rpartition(":")[2]) for claim in claims]


async def test_its_jobs_come_in_their_order(driver: DatabaseDriver) -> None:
    assert numbers(await take(driver, 20)) == list(range(10, 30))
    assert numbers(await take(driver, 20)) == list(range(30, 50))


async def test_a_job_that_lands_before_the_last_claim_waits_for_a_few_claims_only(driver: DatabaseDriver) -> None:
    """Its transaction committed late."""
    await take(driver, 10)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await driver.jobs.insert([envelope(1_000, available_at=long_ago)])
    taken = [number for _ in range(6) for number in numbers(await take(driver, 5))]
    assert sorted(taken) == [*range(20, 49), 1_000]


@pytest.mark.parametrize("urgent", [1, 20, 30])
async def test_more_urgent_jobs_come_first(driver: DatabaseDriver, urgent: int) -> None:
    await driver.jobs.insert(envelopes(urgent, priority=3))
    await driver.jobs.insert([envelope(priority=0)])
    claims = await take(driver, 20)
    assert [claim.priority for claim in claims] == [0, *[3] * min(urgent, 19), *[5] * (19 - urgent)]
    assert [claim.priority for claim in await take(driver, 20)] == [*[3] * (urgent - 19), *[5] * min(20, 39 - urgent)]


async def test_less_urgent_jobs_come_last(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(5, priority=7))
    assert {claim.priority for claim in await take(driver, 50)} == {5}
    assert [claim.priority for claim in await take(driver, 50)] == [*[5] * 40, *[7] * 5]


async def test_delayed_and_held_jobs_that_are_more_urgent_change_nothing(driver: DatabaseDriver) -> None:
    await driver.jobs.insert([envelope(priority=0, delay=60), envelope(priority=1)])
    [held] = await driver.jobs.claim(["default"], 1, 60)
    assert held.priority == 1
    await take(driver, 10)
    assert numbers(await take(driver, 20)) == list(range(20, 40))


async def test_a_queue_that_is_preferred_comes_first(driver: DatabaseDriver) -> None:
    await take(driver, 10, "high", "default")
    await driver.jobs.insert(envelopes(3, queue="high"))
    assert [claim.queue for claim in await take(driver, 10, "high", "default")] == [*["high"] * 3, *["default"] * 7]


async def test_a_claim_from_another_queue_is_none_from_this_one(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(5, queue="other"))
    assert {claim.queue for claim in await take(driver, 3, "other")} == {"other"}


async def test_its_end_leads_to_the_next_queue(driver: DatabaseDriver) -> None:
    await driver.jobs.insert(envelopes(30, queue="low"))
    await take(driver, 80, "default", "low")
    assert [claim.queue for claim in await take(driver, 30, "default", "low")] == [*["default"] * 10, *["low"] * 20]


async def test_a_paused_queue_gives_nothing(driver: DatabaseDriver) -> None:
    await driver.queues.pause("default")
    assert await take(driver, 20) == []


class AtHead(ScanCost):
    """No claim is made from marks, for comparison."""

    @property
    def at_head(self) -> bool:
        return True


@asynccontextmanager
async def others_are_claiming(driver: DatabaseDriver, count: int) -> AsyncIterator[None]:
    """They have taken so many jobs and have not committed yet."""
    dialect = driver.database.dialect
    async with driver.database.engine.connect() as opened:
        rows = await opened.exec_driver_sql(*dialect.select_claimable("default", dialect.due(), count))
        listed, parameters = dialect.id_list([row[0] for row in rows])
        await opened.exec_driver_sql(dialect.reserve(listed), (b"o" * 16, 60_000_000, 60_000_000, *parameters))
        yield
        await opened.rollback()


@pytest.fixture
def no_new_statistics(migrated_url: str) -> Iterator[None]:
    """A server that gathers statistics of a table that has grown reads thousands of its pages, at any time."""
    with connection(migrated_url) as operator:
        operator.exec_driver_sql("SET GLOBAL innodb_stats_auto_recalc = OFF")
        yield
        operator.exec_driver_sql("SET GLOBAL innodb_stats_auto_recalc = ON")


@pytest.mark.alone_on_its_server("one by one")
@pytest.mark.parametrize(
    "backend", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
@pytest.mark.usefixtures("no_new_statistics")
async def test_what_others_are_taking_is_passed_over_once(
    driver: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    """Not once for every priority without jobs: then it would be six times."""
    others = DatabaseDriver(migrated_url, pool_size=1)
    await driver.jobs.insert(envelopes(2_000))
    assert driver.jobs.claim_scan.cursors is not None
    driver.jobs.claim_scan.cursors.scan_cost = AtHead()

    async def pages(*, short_jobs: bool) -> int:
        before = await reads(driver)
        assert len(await (driver.short_jobs if short_jobs else driver.jobs).claim(["default"], 20, 60)) == 20
        return (await reads(driver) - before).pages

    # The fewest of three rounds, because the server looks at pages for itself, too. The first claim of a round is of
    # other jobs, and ends the backlog.
    async with others_are_claiming(others, 500):
        rounds = [[await pages(short_jobs=number > 0) for number in range(7)] for _ in range(3)]
    await others.close()
    plain, *short_jobs = (min(costs) for costs in zip(*rounds, strict=True))
    first, *following = short_jobs
    assert max(following) < min(plain, first) / 2, f"{plain} pages from the head, then {short_jobs}"
