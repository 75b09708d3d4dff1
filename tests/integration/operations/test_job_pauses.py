"""Pauses of job classes and keys, which a database has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import outbox
from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.jobs.claim import ClaimRequest, ClaimTransaction
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms, pause_of
from outbox.drivers.values import Claim, PolicyNews
from outbox.envelope import Envelope, serialize
from outbox.errors import InvalidOption
from outbox.events import Event, JobSettled, Paused, Resumed
from outbox.ids import JobId
from outbox.settlement import Outcome, Settlement
from outbox.testing import travel
from tests.conformance.jobs import envelope, envelopes
from tests.integration.policies.test_key_costs import rows_read
from tests.support.commands import run_process
from tests.support.embedded_worker import OFTEN, TIMEOUT, Arrival, Ping, put, working
from tests.support.row_locks import arrivals

BAD = PauseTarget(PauseKind.JOB, "tests.Bad")
ACME = PauseTarget(PauseKind.KEY, "tenant:acme")


class Import(Job):
    concurrency_limit = 5
    tenant: str

    def concurrency_key(self) -> str:
        return f"tenant:{self.tenant}"

    async def handle(self) -> None: ...


class Renamed(Job):
    name = "tests.Renamed"
    aliases = ("tests.Former",)

    async def handle(self) -> None: ...


class Held(Job):
    """Runs until the test lets it end."""

    async def handle(self) -> None:
        begun, end = _held[-1]
        begun.set()
        await end.wait()


_held: list[tuple[asyncio.Event, asyncio.Event]] = []
"""Whether one has begun, and may end; of the latest test."""


def bad(count: int) -> list[Envelope]:
    return [job._replace(name=BAD.name) for job in envelopes(count)]


async def claim(driver: DatabaseDriver, limit: int = 20) -> list[Claim]:
    return await driver.jobs.claim(["default"], limit, 30)


def ids(claims: Sequence[Claim]) -> list[JobId]:
    return [claim.fence.job_id for claim in claims]


def quiet(_: frozenset[str]) -> None:
    """Nobody waits."""


async def parked(driver: DatabaseDriver) -> int:
    async with driver.database.engine.connect() as connection:
        return int((await connection.execute(text("SELECT COUNT(*) FROM queue_paused_jobs"))).scalar_one())


async def test_jobs_of_other_classes_flow_and_nothing_is_lost(database: DatabaseDriver, other: DatabaseDriver) -> None:
    """The fleet leaves the class from the next claim on; its attempts stay; it goes on in the order of dispatch."""
    first, good = bad(1_200), envelopes(3)
    await database.jobs.insert([*first, *good])
    assert await database.pauses.pause(BAD, PauseTerms("a bug"))
    assert ids(await claim(other)) == [job.id for job in good]
    later = bad(30)
    await database.jobs.insert(later)
    assert await claim(other) == await claim(database) == []
    [counts] = await other.queues.counts()
    assert (counts.parked, counts.ready, counts.paused) == (1_230, 0, False)
    told: list[frozenset[str]] = []
    assert await other.pauses.resume(BAD, told.append)
    assert set(told) == {frozenset({"default"})}
    assert await parked(database) == 0
    claims = [each for _ in range(3) for each in await claim(database, 500)]
    assert ids(claims) == [job.id for job in [*first, *later]]
    assert {each.attempt for each in claims} == {1}


async def test_a_class_goes_on_when_its_pause_ends_by_itself(database: DatabaseDriver, other: DatabaseDriver) -> None:
    events: list[Event] = []
    database.policies.on_news = lambda news: events.extend(news.events)
    await database.jobs.insert(bad(3))
    await database.pauses.pause(BAD, PauseTerms(seconds=60))
    assert await claim(other) == []
    due = (await other.jobs.next_due(["default"])).due
    assert due is not None
    assert 0 < due <= 60
    with travel(seconds=61):
        assert len(await claim(other)) == 3
        await database.policies.upkeep()
    assert events == [Resumed("database", "job", BAD.name, by_itself=True)]
    assert await parked(database) == 0


async def test_an_end_can_be_brought_forward(database: DatabaseDriver, other: DatabaseDriver) -> None:
    """What waits for the old end, waits for the new one."""
    await database.jobs.insert(bad(3))
    await database.pauses.pause(BAD, PauseTerms(seconds=3_600))
    assert await claim(other) == []
    assert not await database.pauses.pause(BAD, PauseTerms(seconds=60))
    assert await claim(other) == []
    due = (await other.jobs.next_due(["default"])).due
    assert due is not None
    assert 0 < due <= 60


@pytest.mark.parametrize("paused_as", ["tests.Renamed", "tests.Former"])
async def test_a_class_is_paused_with_the_jobs_that_have_its_old_name(
    migrated_url: str, database: DatabaseDriver, paused_as: str
) -> None:
    """Under whichever name it was paused, and it is resumed by the class."""
    jobs = [envelope()._replace(name=name) for name in ("tests.Renamed", "tests.Former", BAD.name)]
    await database.jobs.insert(jobs)
    async with outbox.Outbox(database_url=migrated_url) as client:
        with client.use():
            assert await outbox.pause(job=paused_as, reason="a bug")
            assert ids(await claim(database)) == [jobs[2].id]
            assert await parked(database) == 2
            for each in await database.jobs.list_jobs():
                assert (pause := pause_of(await outbox.pauses(), each)) is None or pause.reason == "a bug"
                assert (pause is None) == (each.name == BAD.name)
            assert await outbox.resume(job=Renamed)
            assert not await outbox.resume(job=Renamed)
    assert ids(await claim(database)) == [jobs[0].id, jobs[1].id]


async def test_a_key_is_paused_and_other_keys_go_on(database: DatabaseDriver, other: DatabaseDriver) -> None:
    acme = [serialize(Import(tenant="acme")) for _ in range(40)]
    rest = [serialize(Import(tenant="beta")), envelope()]
    await database.jobs.insert([*acme, *rest])
    assert await database.pauses.has_key("tenant:acme")
    assert not await database.pauses.has_key("tenant:gamma")
    await database.pauses.pause(ACME, PauseTerms("unpaid"))
    assert set(ids(await claim(other, 10))) == {job.id for job in rest}
    assert await claim(other, 10) == []
    await other.pauses.resume(ACME, quiet)
    claims = await claim(other, 10)
    assert set(ids(claims)) <= {job.id for job in acme}
    assert len(claims) == 5


async def test_what_a_killed_process_has_left_is_released_by_upkeep(database: DatabaseDriver) -> None:
    """It has ended the pause and died before it had released the jobs."""
    await database.jobs.insert(bad(30))
    await database.pauses.pause(BAD, PauseTerms())
    assert await claim(database) == []
    async with database.database.engine.begin() as connection:
        await connection.execute(text("DELETE FROM queue_job_pauses"))
    assert await claim(database) == []
    told: list[PolicyNews] = []
    database.policies.on_news = told.append
    await database.policies.upkeep()
    assert told == [PolicyNews(frozenset({"default"}))]
    assert len(await claim(database, 30)) == 30


async def test_a_claim_parks_nothing_under_a_pause_that_ends_meanwhile(
    database: DatabaseDriver, other: DatabaseDriver, backend: str
) -> None:
    """The end of the pause waits for the claim, so that it sees what that has parked."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await database.jobs.insert(bad(3))
    await database.pauses.pause(BAD, PauseTerms())
    store, jobs = database.database, database.jobs
    taking = ClaimTransaction(store, jobs.unconfirmed, jobs.claim_scan, "database", ClaimRequest(["default"], 10, 30))
    with arrivals(database) as arrived:
        async with store.engine.connect() as claiming:
            assert await taking.run(claiming) == []
            ending = asyncio.create_task(other.pauses.resume(BAD, quiet))
            await arrived.wait_for(1)
            assert not ending.done()
            await claiming.commit()
    assert await ending
    assert len(await claim(database)) == 3


class Free(Ping):
    """Of another class than the paused one."""


PINGS = PauseTarget(PauseKind.JOB, Ping.name)


def free(arrival: Arrival) -> Job:
    return Free(number=arrival.number)


async def test_a_fleet_leaves_the_class_and_a_running_job_goes_on(migrated_url: str, database: DatabaseDriver) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    _held.append((begun, may_end))
    held = PauseTarget(PauseKind.JOB, Held.name)
    async with working(migrated_url, sleep=OFTEN) as one, working(migrated_url, sleep=OFTEN) as two:
        await put(migrated_url, Held())
        async with asyncio.timeout(TIMEOUT):
            await begun.wait()
        for target in (held, PINGS):
            await database.pauses.pause(target, PauseTerms("an incident"))
        kept, others = Arrival(), [Arrival() for _ in range(4)]
        await put(migrated_url, kept.job)
        for each in others:
            await put(migrated_url, free(each))
            await each()
        assert not kept.done
        may_end.set()
        async with asyncio.timeout(TIMEOUT):
            while not [end for each in (one, two) for end in each.of(JobSettled) if end.name == Held.name]:
                await asyncio.sleep(0.05)
        [end] = [end for each in (one, two) for end in each.of(JobSettled) if end.name == Held.name]
        assert end.outcome is Outcome.COMPLETED
        assert await database.pauses.resume(PINGS, quiet)
        await kept()


@pytest.mark.parametrize("backend", ["mysql"], indirect=True)
async def test_another_process_resumes_and_idle_workers_are_told_over_redis(
    migrated_url: str, redis_url: str, database: DatabaseDriver, tmp_path: Path
) -> None:
    """They look once a minute by themselves."""
    kept, other = Arrival(), Arrival()
    await put(migrated_url, kept.job)
    await put(migrated_url, free(other))
    await database.pauses.pause(PINGS, PauseTerms())
    async with working(migrated_url, redis_url=redis_url):
        await other()
        assert not kept.done
        environment = {"DATABASE_URL": migrated_url, "REDIS_URL": redis_url}
        resumed = await run_process(tmp_path, "resume", "--job", Ping.name, **environment)
        assert (resumed.code, resumed.out) == (0, f"{Ping.name} is resumed.\n")
        await kept()


@pytest.mark.parametrize("backend", ["mysql", "mariadb"], indirect=True)
async def test_paused_jobs_cost_the_others_nothing(migrated_url: str) -> None:
    """By the server's own count of rows: beside few paused jobs and beside many."""

    async def cost(paused: int) -> int:
        driver = DatabaseDriver(migrated_url, pool_size=1)
        await driver.jobs.insert(bad(paused))
        await driver.pauses.pause(BAD, PauseTerms())
        while (await driver.queues.counts())[0].ready:
            assert await claim(driver) == []
        good = envelopes(10)
        await driver.jobs.insert(good)
        begun = await rows_read(driver)
        claims = await claim(driver)
        await driver.jobs.settle([Settlement.completed(each.fence) for each in claims])
        read = await rows_read(driver) - begun
        assert ids(claims) == [job.id for job in good]
        await driver.close()
        return read

    few = await cost(100)
    # Entries of the claim index that the server has not purged yet are in it.
    assert await cost(5_000) <= few + 100


async def test_applications_pause_by_class_key_and_connection(migrated_url: str) -> None:
    events: list[Event] = []
    soon = datetime.now(UTC) + timedelta(hours=1)
    client = outbox.Outbox(database_url=migrated_url)
    client.listen(events.append, Paused, Resumed)
    async with client:
        assert await outbox.pause(job=Import, reason="a bug", until=soon)
        assert await outbox.pause(key="tenant:acme", for_=timedelta(minutes=5))
        assert await outbox.pause(connection="database")
        assert await outbox.pause("mail")
        assert not await outbox.pause(queue="mail")
        found = await outbox.pauses()
        assert [(each.kind, each.name, each.reason) for each in found] == [
            ("connection", "database", None),
            ("queue", "mail", None),
            ("job", Import.name, "a bug"),
            ("key", "tenant:acme", None),
        ]
        assert found[2].until is not None
        assert abs(found[2].until - soon) < timedelta(milliseconds=1)
        assert [await outbox.resume(job=Import.name), await outbox.resume(key="tenant:acme")] == [True, True]
        assert [await outbox.resume(connection="database"), await outbox.resume("mail")] == [True, True]
        assert await outbox.resume("mail") is False
        assert list(await outbox.pauses()) == []
    told = [(type(event).__name__, event.kind, event.name) for event in events if isinstance(event, Paused | Resumed)]
    names = [("job", Import.name), ("key", "tenant:acme"), ("connection", "database"), ("queue", "mail")]
    assert told == [("Paused", *each) for each in names] + [("Resumed", *each) for each in names]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name one thing"),
        ({"queue": "mail", "job": "app.Job"}, "name one thing"),
        ({"queue": "no queue"}, "queue"),
        ({"job": 7}, "named by a text"),
        ({"key": ""}, "1 to 255 characters"),
        ({"queue": "mail", "reason": "x" * 256}, "a reason is a text of 1 to 255"),
        ({"queue": "mail", "for_": 0}, "more than 0"),
        ({"queue": "mail", "until": datetime(2026, 1, 1)}, "with a time zone"),  # noqa: DTZ001
        ({"queue": "mail", "until": datetime(2026, 1, 1, tzinfo=UTC), "for_": 1}, "not both"),
        (
            {"queue": "mail", "until": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))},
            "a calendar in UTC has",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_is_wrong_is_said(migrated_url: str, arguments: dict[str, Any], message: str) -> None:
    async with outbox.Outbox(database_url=migrated_url):
        with pytest.raises(InvalidOption, match=message):
            await outbox.pause(**arguments)
