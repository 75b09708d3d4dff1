"""Pauses that every store has: of a queue, and of the whole connection, with a reason and an end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.drivers.values import Claim
from outbox.errors import ConfigurationError, InvalidOption
from tests.conformance.jobs import envelope

MAIL = PauseTarget(PauseKind.QUEUE, "mail")


def quiet(_: frozenset[str]) -> None:
    """Nobody waits."""


async def claimed(driver: Driver, queue: str) -> list[Claim]:
    """As soon as there is something."""
    async with asyncio.timeout(60):
        while True:
            if claims := await driver.jobs.claim([queue], 10, 30):
                return claims
            await asyncio.sleep(min((await driver.jobs.next_due([queue])).due or 0.05, 0.05))


async def test_a_pause_says_why_and_until_when(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    until = (await driver.now()).replace(microsecond=0) + timedelta(hours=1)
    assert await driver.pauses.pause(MAIL, PauseTerms("the provider is down", until=until, by="ann"))
    [pause] = await other.pauses.all()
    assert (pause.kind, pause.name, pause.reason, pause.by) == ("queue", "mail", "the provider is down", "ann")
    assert pause.until is not None
    assert abs(pause.until - until) <= timedelta(seconds=1)
    assert pause.paused_at is not None
    assert abs(pause.paused_at - await driver.now()) < timedelta(seconds=30)
    assert await other.jobs.claim(["mail"], 1, 30) == []
    due = (await other.jobs.next_due(["mail"])).due
    assert due is not None
    assert 3_500 < due <= 3_601
    [counts] = await other.queues.counts()
    assert counts.paused


async def test_a_second_pause_replaces_what_it_says(driver: Driver) -> None:
    assert await driver.pauses.pause(MAIL, PauseTerms("one", seconds=60))
    assert not await driver.pauses.pause(MAIL, PauseTerms())
    [pause] = await driver.pauses.all()
    assert (pause.reason, pause.until is None) == ("one", False)
    assert not await driver.pauses.pause(MAIL, PauseTerms("two"))
    [pause] = await driver.pauses.all()
    assert (pause.reason, pause.until) == ("two", None)
    assert await driver.pauses.resume(MAIL, quiet)
    assert not await driver.pauses.resume(MAIL, quiet)
    assert list(await driver.pauses.all()) == []


async def test_a_pause_ends_by_itself(driver: Driver, other: Driver) -> None:
    await driver.jobs.insert([envelope(queue="mail")])
    await driver.pauses.pause(MAIL, PauseTerms(seconds=3_600))
    assert await other.jobs.claim(["mail"], 1, 30) == []
    await driver.pauses.pause(MAIL, PauseTerms(seconds=0.5))
    assert len(await claimed(other, "mail")) == 1
    assert list(await driver.pauses.all()) == []
    assert not any(counts.paused for counts in await driver.queues.counts())
    assert await driver.pauses.pause(MAIL, PauseTerms("again"))


async def test_a_connection_is_paused_with_all_its_queues(driver: Driver, other: Driver) -> None:
    whole = PauseTarget(PauseKind.CONNECTION, driver.name)
    await driver.jobs.insert([envelope(queue="a"), envelope(queue="b")])
    assert await driver.pauses.pause(whole, PauseTerms("an incident"))
    assert not await driver.pauses.pause(whole, PauseTerms())
    assert await other.jobs.claim(["a", "b"], 2, 30) == []
    assert (await other.jobs.next_due(["a", "b"])).due is None
    assert all(counts.paused for counts in await other.queues.counts())
    assert [(each.kind, each.name, each.reason) for each in await other.pauses.all()] == [
        ("connection", driver.name, "an incident")
    ]
    assert await other.pauses.resume(whole, quiet)
    assert {claim.queue for claim in await driver.jobs.claim(["a", "b"], 2, 30)} == {"a", "b"}


async def test_an_end_that_has_passed_is_refused(driver: Driver) -> None:
    with pytest.raises(InvalidOption, match="clock has passed"):
        await driver.pauses.pause(MAIL, PauseTerms(until=datetime(2020, 1, 1, tzinfo=UTC)))
    assert list(await driver.pauses.all()) == []


async def test_redis_pauses_no_class_and_says_so(driver: Driver, backend: str) -> None:
    job = PauseTarget(PauseKind.JOB, "tests.Job")
    if not backend.startswith("redis"):
        assert await driver.pauses.pause(job, PauseTerms())
        return
    with pytest.raises(ConfigurationError, match="no job: pause its queue"):
        await driver.pauses.pause(job, PauseTerms())
    with pytest.raises(ConfigurationError, match="no job: pause its queue"):
        await driver.pauses.resume(job, quiet)
