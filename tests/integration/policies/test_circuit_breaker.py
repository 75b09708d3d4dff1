"""A circuit breaker: jobs that raise too often pause their class, and one probe decides when it goes on."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from sqlalchemy import text

import outbox
from outbox import Job, throttle_exceptions
from outbox.drivers.breakers import BreakerTerms
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim
from outbox.envelope import serialize
from outbox.errors import ConfigurationError
from outbox.events import CircuitClosed, CircuitOpened, Event
from outbox.ids import JobId
from outbox.testing import travel
from tests.conformance.jobs import envelopes
from tests.support.embedded_worker import OFTEN, TIMEOUT

NAME = "tests.Job"
TERMS = BreakerTerms(max_exceptions=3, within=60, pause=60)


def quiet(_: frozenset[str]) -> None:
    """Nobody waits."""


async def claim(driver: DatabaseDriver, limit: int = 10) -> list[Claim]:
    return await driver.jobs.claim(["default"], limit, 30)


async def end_the_pause(driver: DatabaseDriver) -> None:
    """As if its time were up: of the pause, and of the jobs that wait for it."""
    async with driver.database.engine.begin() as connection:
        begun, past = "'2025-12-31 23:59:00.000000'", "'2026-01-01 00:00:00.000000'"
        await connection.execute(text(f"UPDATE queue_job_pauses SET paused_at = {begun}, paused_until = {past}"))
        await connection.execute(text(f"UPDATE queue_jobs SET available_at = {past} WHERE reserved_by IS NULL"))


async def opened(driver: DatabaseDriver, other: DatabaseDriver) -> list[Claim]:
    """Three exceptions of two workers; returns the jobs that raised."""
    held = await claim(driver, 3)
    raised = [
        await each.breakers.failed(NAME, claim.fence.job_id, TERMS, "OSError")
        for each, claim in zip((driver, other, driver), held, strict=True)
    ]
    assert raised == [False, False, True]
    return held


async def test_exceptions_of_all_workers_open_it(database: DatabaseDriver, other: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(6))
    held = await opened(database, other)
    assert await claim(database) == await claim(other) == []
    [pause] = await other.pauses.all()
    assert (pause.kind, pause.name, pause.by) == ("job", NAME, "circuit breaker")
    assert pause.reason == "circuit breaker: 3 exceptions within 60 s, the last OSError"
    assert pause.until is not None
    assert pause.paused_at is not None
    assert 59 < (pause.until - pause.paused_at).total_seconds() < 61
    # Jobs that were running go on, and count no more.
    assert not await other.breakers.failed(NAME, held[0].fence.job_id, TERMS, "OSError")
    assert not await other.breakers.succeeded(NAME, held[0].fence.job_id, quiet)
    assert len(await database.pauses.all()) == 1


async def test_one_probe_of_the_fleet_runs_and_closes_it(database: DatabaseDriver, other: DatabaseDriver) -> None:
    await database.jobs.insert(envelopes(6))
    await opened(database, other)
    assert await claim(database) == []
    await end_the_pause(database)
    found = await asyncio.gather(claim(database), claim(other))
    [probe] = [each for claims in found for each in claims]
    assert await claim(database) == await claim(other) == []
    told: list[frozenset[str]] = []
    assert await other.breakers.is_paused(NAME)
    assert await other.breakers.succeeded(NAME, probe.fence.job_id, told.append)
    assert told == [frozenset({"default"})]
    assert not await database.breakers.is_paused(NAME)
    assert len(await claim(database)) == 2
    # It counts anew.
    assert not await other.breakers.failed(NAME, probe.fence.job_id, TERMS, "OSError")


async def test_a_probe_that_raises_opens_it_again_and_a_lost_one_is_replaced(
    database: DatabaseDriver, other: DatabaseDriver
) -> None:
    await database.jobs.insert(envelopes(6))
    await opened(database, other)
    assert await claim(database) == []
    await end_the_pause(database)
    [probe] = await claim(database)
    assert await database.breakers.failed(NAME, probe.fence.job_id, TERMS, "TimeoutError")
    [pause] = await other.pauses.all()
    assert pause.reason == "circuit breaker: the probe raised TimeoutError"
    assert await claim(other) == []
    await end_the_pause(database)
    [lost] = await claim(other)
    assert await claim(database) == []
    # Its worker was killed: after the time of a pause another job is the probe.
    await end_the_pause(database)
    [second] = await claim(database)
    assert second.fence.job_id != lost.fence.job_id
    assert not await other.breakers.succeeded(NAME, lost.fence.job_id, quiet)
    assert await other.breakers.succeeded(NAME, second.fence.job_id, quiet)


async def test_exceptions_long_apart_do_not_open_it(database: DatabaseDriver) -> None:
    async def fail() -> bool:
        return await database.breakers.failed(NAME, JobId(int=1), TERMS, "OSError")

    assert [await fail(), await fail()] == [False, False]
    async with database.database.engine.begin() as connection:
        await connection.execute(text("UPDATE queue_breakers SET counted_from = '2026-01-01 00:00:00.000000'"))
    assert [await fail(), await fail(), await fail()] == [False, False, True]


class Unstable(Job):
    middleware = (throttle_exceptions(max_exceptions=2, within=60, pause=10, on=OSError),)
    max_tries = 10
    backoff = 0.0
    works: ClassVar[bool] = False
    started: ClassVar[int] = 0

    async def handle(self) -> None:
        Unstable.started += 1
        if not Unstable.works:
            raise OSError("the service is down")


async def test_two_workers_stop_try_one_and_go_on(migrated_url: str, database: DatabaseDriver) -> None:
    """Each step is told once: to the log of its worker, and to the client that has started the worker. The pauses end
    when the test has seen them, before any lease does."""
    Unstable.works, Unstable.started = False, 0
    opened: list[int] = []
    """How many had started at each opening."""
    opens = [asyncio.Event(), asyncio.Event()]
    closed, of_client = asyncio.Event(), list[str]()

    def hear(event: Event) -> None:
        if isinstance(event, CircuitClosed):
            closed.set()
        else:
            opened.append(Unstable.started)
            Unstable.works = len(opened) >= 2
            opens[min(len(opened), 2) - 1].set()

    async with outbox.Outbox(database_url=migrated_url) as client:
        client.listen(lambda event: of_client.append(type(event).__name__), CircuitOpened, CircuitClosed)
        await database.jobs.insert([serialize(Unstable()) for _ in range(30)])
        with client.use():
            one, two = (outbox.Worker(sleep=OFTEN, concurrency=1) for _ in range(2))
        for each in (one, two):
            each.events.listen(hear, CircuitOpened, CircuitClosed)
        async with asyncio.timeout(TIMEOUT), one, two:
            await opens[0].wait()
            with travel(seconds=11):
                await opens[1].wait()
                with travel(seconds=11):
                    await closed.wait()
                    while await database.queues.counts():
                        await asyncio.sleep(0.05)
    assert opened[0] <= 4, "two that raised, and what the two workers held already"
    assert opened[1] <= opened[0] + 3, "the probe, and what was held"
    assert of_client == ["CircuitOpened", "CircuitOpened", "CircuitClosed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_exceptions": 0}, "max_exceptions is a whole number from 1"),
        ({"within": 0}, "within is a number of seconds"),
        ({"pause": 0.5}, "a pause is a number of seconds from 1"),
        ({"on": "OSError"}, "on takes classes of exceptions"),
        ({"on": ()}, "on takes classes of exceptions"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        throttle_exceptions(**arguments)  # type: ignore[arg-type]
