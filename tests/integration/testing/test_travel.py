"""The database decides, with another now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import outbox
from outbox import Job, Outbox
from outbox.drivers.database.driver import DatabaseDriver
from outbox.testing import drain, travel
from outbox.testing.travel import clock


class Later(Job):
    name = "travel.Later"

    async def handle(self) -> None: ...


async def test_delays_become_due(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        await outbox.dispatch(Later(), delay=timedelta(hours=1))
        await outbox.dispatch(Later(), delay=datetime.now(UTC) + timedelta(hours=3))
        with travel(minutes=59):
            assert await drain() == []
            with travel(minutes=2):
                assert len(await drain()) == 1
                await outbox.dispatch(Later(), delay=60)
            assert await drain() == []
        assert await drain() == []
        with travel(timedelta(hours=4)):
            assert len(await drain()) == 2


async def test_jobs_that_are_dispatched_meanwhile_are_due_from_then_on(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        with travel(hours=1):
            await outbox.dispatch(Later())
            await outbox.dispatch_many([Later() for _ in range(300)], delay=0.5)
        assert await drain() == []
        with travel(hours=1, seconds=1):
            assert len(await drain()) == 301


async def test_leases_run_out(migrated_url: str) -> None:
    async with Outbox(database_url=migrated_url):
        await outbox.dispatch(Later())
        driver = DatabaseDriver(migrated_url)
        [claim] = await driver.jobs.claim(["default"], 1, 30)
        assert await drain() == []
        with travel(seconds=31):
            [ended] = await drain()
        assert (ended.attempt, claim.attempt) == (2, 1)
        await driver.close()


async def test_the_clock_of_the_store_is_shifted_and_returns(migrated_url: str) -> None:
    driver = DatabaseDriver(migrated_url)
    before = await driver.now()
    with travel(days=2):
        assert timedelta(days=2) <= await driver.now() - before < timedelta(days=2, minutes=2)
    with travel(hours=-1):
        assert await driver.now() < before
    assert timedelta() <= await driver.now() - before < timedelta(minutes=2)
    await driver.close()


async def test_a_decorated_function_is_ahead_until_it_has_ended() -> None:
    @travel(hours=1)
    def ahead() -> timedelta:
        return clock.ahead

    @travel(hours=2)
    async def ahead_at_its_end() -> timedelta:
        await asyncio.sleep(0)
        return clock.ahead

    assert [ahead(), await ahead_at_its_end(), ahead(), clock.ahead] == [
        timedelta(hours=1), timedelta(hours=2), timedelta(hours=1), timedelta(),
    ]  # fmt: skip


def test_one_block_can_be_entered_again() -> None:
    later = travel(hours=1)
    with later:
        with later:
            assert clock.ahead == timedelta(hours=2)
        assert clock.ahead == timedelta(hours=1)
    assert clock.ahead == timedelta()


def test_a_clock_is_put_ahead_by_something() -> None:
    for wrong in ({}, {"by": timedelta(hours=1), "hours": 1}, {"years": 1}):
        with pytest.raises(TypeError), travel(**wrong):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="3,650 days"), travel(days=4000):
        pass
    assert clock.ahead == timedelta()
