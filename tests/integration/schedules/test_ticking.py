"""A tick is one transaction: the job, and when the schedule ticks next. Each tick has one job, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

import outbox
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim, JobState, PolicyNews, StoredJob
from outbox.events import ScheduleSkipped, ScheduleTicked
from outbox.settlement import Failure, Settlement
from outbox.testing import travel
from tests.conformance.jobs import claim_one
from tests.servers import sql
from tests.support.schedule_jobs import at, definition, put_due, set_next, stored, ticks, utc


@pytest.fixture(autouse=True)
def settings(migrated_url: str) -> Iterator[None]:
    outbox.configure(database_url=migrated_url)
    yield
    outbox.configure()


@pytest.fixture(autouse=True)
def between_ticks() -> Iterator[None]:
    """It is ten minutes past an hour: no hour begins while a test runs, and with it no other tick."""
    now = datetime.now(UTC)
    with travel(now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1, minutes=10) - now):
        yield


@pytest.fixture
def news(database: DatabaseDriver) -> list[PolicyNews]:
    heard: list[PolicyNews] = []
    database.policies.on_news = heard.append
    return heard


async def test_a_tick_inserts_its_job_and_moves_the_schedule(
    database: DatabaseDriver, migrated_url: str, news: list[PolicyNews]
) -> None:
    tick = await put_due(database, migrated_url, when="90s")
    [due] = await database.schedules.next_due([])
    assert due.name == "digest"
    assert due.seconds <= 0
    assert await database.schedules.tick("digest", {})
    [found] = await ticks(database)
    assert (found.schedule, found.at, found.previous) == ("digest", tick, None)
    schedule = await stored(database)
    assert (schedule.next_at, schedule.last_tick) == (tick + timedelta(seconds=90), tick)
    [job] = await database.jobs.list_jobs()
    assert (job.payload.replace(" ", ""), job.queue, job.state) == ('{"tenant":7}', "default", JobState.READY)
    assert [each.queues for each in news if each.queues] == [{"default"}]
    assert [event for each in news for event in each.events] == [ScheduleTicked("digest", tick, job.id)]
    assert await database.schedules.tick("digest", {}), "nothing is due"
    assert len(await database.jobs.list_jobs()) == 1


async def test_the_next_job_knows_the_tick_before(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url, when="90s")
    await database.schedules.tick("digest", {})
    with sql.connection(migrated_url) as connection:
        connection.execute(text("DELETE FROM queue_schedule_ticks"))
        connection.commit()
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    assert [each.previous for each in await ticks(database)] == [None, tick]


async def test_a_tick_that_has_had_its_job_gets_no_other(database: DatabaseDriver, migrated_url: str) -> None:
    """Also where a schedule was set back, or removed and added again."""
    tick = await put_due(database, migrated_url)
    await database.schedules.tick("digest", {})
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    await database.schedules.remove("digest")
    await put_due(database, migrated_url)
    await database.schedules.tick("digest", {})
    assert at(await ticks(database)) == [tick]


async def test_two_workers_at_one_tick(database: DatabaseDriver, other: DatabaseDriver, migrated_url: str) -> None:
    """The first is stopped between its INSERT and its COMMIT: the other leaves the schedule alone, and never waits. On
    SQLite it waits for its turn to write, and finds nothing due."""
    tick = await put_due(database, migrated_url)
    inserted, go_on = asyncio.Event(), asyncio.Event()
    write_plain = database.database.write_plain

    async def stopping(work, **options):
        async def stopped(connection):
            result = await work(connection)
            inserted.set()
            await go_on.wait()
            return result

        return await write_plain(stopped, **options)

    database.database.write_plain = stopping  # type: ignore[method-assign, assignment]
    first = asyncio.create_task(database.schedules.tick("digest", {}))
    await inserted.wait()
    second = asyncio.create_task(other.schedules.tick("digest", {}))
    if "sqlite" not in migrated_url:
        assert await second is False
        assert await other.jobs.list_jobs() == []
    go_on.set()
    assert await first is True
    await second
    assert await other.schedules.tick("digest", {}) is True, "nothing is due"
    assert at(await ticks(other)) == [tick]


async def test_many_workers_at_one_tick(database: DatabaseDriver, other: DatabaseDriver, migrated_url: str) -> None:
    first = await put_due(database, migrated_url, ago=5 * 3600, misfire="all")
    schedules = [database.schedules, other.schedules] * 4
    await asyncio.gather(*(each.tick("digest", {}) for each in schedules))
    assert at(await ticks(database)) == [first + timedelta(hours=hour) for hour in range(6)]


@pytest.mark.parametrize(
    ("misfire", "grace", "hours"),
    [("once", 7200, [0]), ("once", 60, []), ("skip", 7200, []), ("all", 0, [3, 2, 1, 0])],
)
async def test_ticks_that_no_worker_was_there_for(
    database: DatabaseDriver, migrated_url: str, news: list[PolicyNews], misfire: str, grace: float, hours: list[int]
) -> None:
    # The latest of them is 61 s to 59 min old, whatever the time is.
    minute = (await database.now() - timedelta(seconds=90)).minute
    when = f"{minute} * * * *"
    first = await put_due(database, migrated_url, ago=3 * 3600 + 60, when=when, misfire=misfire, grace=grace)
    await database.schedules.tick("digest", {})
    latest = first + timedelta(hours=3)
    assert at(await ticks(database)) == [latest - timedelta(hours=hour) for hour in hours]
    assert (await stored(database)).next_at == latest + timedelta(hours=1)
    skipped = [event for each in news for event in each.events if isinstance(event, ScheduleSkipped)]
    assert [event.tick for event in skipped] == ([] if hours else [latest])


async def test_missed_ticks_are_made_up_for_at_most_100_times(database: DatabaseDriver, migrated_url: str) -> None:
    first = await put_due(database, migrated_url, ago=500, when="1s", misfire="all")
    await database.schedules.tick("digest", {})
    found = await ticks(database)
    assert len(found) == 100
    assert found[0].at >= first + timedelta(seconds=400)
    assert [each.previous for each in found[1:]] == at(found)[:-1]


async def test_jobs_may_overlap(database: DatabaseDriver, migrated_url: str) -> None:
    await put_due(database, migrated_url, ago=10, when="1s", misfire="all")
    await database.schedules.tick("digest", {})
    assert len(await ticks(database)) >= 10


async def test_a_tick_is_skipped_while_the_job_before_is_not_finished(
    database: DatabaseDriver, migrated_url: str, news: list[PolicyNews]
) -> None:
    await put_due(database, migrated_url, overlap="skip")
    await database.schedules.tick("digest", {})
    [first] = await ticks(database)
    for state in ("waiting", "running"):
        claim = await claim_one(database) if state == "running" else None
        set_next(database, migrated_url, "digest", first.at)
        make_room(database, migrated_url, 1)
        await database.schedules.tick("digest", {})
        assert len(await ticks(database)) == 1, state
    skipped = [event for each in news for event in each.events if isinstance(event, ScheduleSkipped)]
    assert [event.reason for event in skipped] == ["the job of an earlier tick is not finished"] * 2
    assert claim is not None
    claim = with_headers(claim, await database.jobs.list_jobs())
    await database.jobs.settle([Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)])
    set_next(database, migrated_url, "digest", first.at)
    await database.schedules.tick("digest", {})
    assert len(await ticks(database)) == 1
    assert (await database.jobs.list_jobs())[0].id != claim.fence.job_id


def make_room(driver: DatabaseDriver, url: str, hours: int) -> None:
    """Ticks that were are ``hours`` earlier, in the rows and in the headers of their jobs."""
    dialect = driver.database.dialect
    with sql.connection(url) as connection:
        rows = connection.execute(text("SELECT tick, job_id FROM queue_schedule_ticks")).all()
        for moment, job_id in rows:
            tick = dialect.parse_timestamp(moment)
            earlier = tick - timedelta(hours=hours)
            connection.execute(
                text("UPDATE queue_schedule_ticks SET tick = :earlier WHERE job_id = :job"),
                {"earlier": dialect.timestamp(earlier), "job": job_id},
            )
            [headers] = connection.execute(
                text("SELECT headers FROM queue_jobs WHERE id = :job"), {"job": job_id}
            ).one()
            now, then = (each.isoformat().replace("+00:00", "Z") for each in (tick, earlier))
            headers = headers.decode() if isinstance(headers, bytes) else headers
            assert now in headers
            connection.execute(
                text("UPDATE queue_jobs SET headers = :headers WHERE id = :job"),
                {"headers": headers.replace(now, then), "job": job_id},
            )
        connection.commit()


def with_headers(claim: Claim, jobs: list[StoredJob]) -> Claim:
    """As if it had been claimed after `make_room`."""
    return claim._replace(headers=next(job.headers for job in jobs if job.id == claim.fence.job_id))


async def test_one_job_waits_for_the_end_of_the_running_one(
    database: DatabaseDriver, migrated_url: str, news: list[PolicyNews]
) -> None:
    tick = await put_due(database, migrated_url, overlap="queue_one")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    for hours in (1, 2):
        make_room(database, migrated_url, 1)
        set_next(database, migrated_url, "digest", tick)
        await database.schedules.tick("digest", {})
        assert len(await ticks(database)) == 2, hours
    assert await database.jobs.claim(["default"], 10, 30) == [], "parked"
    parked = [job for job in await database.jobs.list_jobs() if job.state is JobState.PARKED]
    assert len(parked) == 1
    claim = with_headers(claim, await database.jobs.list_jobs())
    settled = await database.jobs.settle(
        [Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)]
    )
    assert settled.news.queues == {"default"}
    assert (await claim_one(database)).fence.job_id == parked[0].id


async def test_a_job_between_two_attempts_is_not_finished(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url, overlap="queue_one")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    failure = Failure("ValueError", "no", "")
    retried = Settlement.retried(claim.fence, 0.0, failure).leaving(claim.policies or 0, claim.headers)
    await database.jobs.settle([retried])
    make_room(database, migrated_url, 1)
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    states = sorted(job.state for job in await database.jobs.list_jobs())
    assert states == sorted([JobState.PARKED, JobState.READY])


async def test_what_an_applications_transaction_has_removed_is_found_by_upkeep(
    database: DatabaseDriver, migrated_url: str
) -> None:
    tick = await put_due(database, migrated_url, overlap="queue_one")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    make_room(database, migrated_url, 1)
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    with sql.connection(migrated_url) as connection:
        connection.execute(text("DELETE FROM queue_jobs WHERE id = :id"), {"id": claim.fence.job_id.bytes})
        connection.commit()
    assert await database.jobs.claim(["default"], 10, 30) == []
    assert await database.policies.upkeep() is None
    assert (await claim_one(database)).fence.job_id != claim.fence.job_id


async def test_ticks_are_forgotten_a_week_after_the_end_of_their_jobs(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await put_due(database, migrated_url, ago=3600, misfire="all")
    await database.schedules.tick("digest", {})
    first, second = await claim_one(database), await claim_one(database)
    await database.jobs.settle(
        [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in (first, second)]
    )
    old = database.database.dialect.timestamp(await database.now() - timedelta(days=8))
    with sql.connection(migrated_url) as connection:
        values = {"old": old, "job": first.fence.job_id.bytes}
        connection.execute(text("UPDATE queue_schedule_ticks SET ended_at = :old WHERE job_id = :job"), values)
        connection.commit()
    await database.policies.upkeep()
    with sql.connection(migrated_url) as connection:
        assert connection.execute(text("SELECT job_id FROM queue_schedule_ticks")).scalars().all() == [
            second.fence.job_id.bytes
        ]


async def test_a_tick_removes_the_jobs_before(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url, overlap="cancel")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    make_room(database, migrated_url, 1)
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    [job] = await database.jobs.list_jobs()
    assert job.id != claim.fence.job_id
    assert (await database.jobs.extend([claim.fence], 30)).lost == {claim.fence}, "its worker stops it"
    with sql.connection(migrated_url) as connection:
        ended = "SELECT COUNT(*) FROM queue_schedule_ticks WHERE ended_at IS NOT NULL"
        assert connection.execute(text(ended)).scalar() in (0, 1)


async def test_a_failed_job_is_finished_until_it_is_retried(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url, overlap="skip")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    failed = Settlement.failed(claim.fence, Failure("ValueError", "no", ""))
    await database.jobs.settle([failed.leaving(claim.policies or 0, claim.headers)])
    await database.failed.retry([claim.fence.job_id])
    make_room(database, migrated_url, 1)
    set_next(database, migrated_url, "digest", tick)
    await database.schedules.tick("digest", {})
    assert [job.id for job in await database.jobs.list_jobs()] == [claim.fence.job_id], "it lives again"


async def test_jitter_delays_the_job_and_not_the_tick(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url, jitter=86_400)
    await database.schedules.tick("digest", {})
    [job] = await database.jobs.list_jobs()
    assert tick <= job.available_at <= tick + timedelta(days=1)
    assert job.state is JobState.DELAYED or job.available_at <= await database.now()
    assert (await stored(database)).next_at == tick + timedelta(hours=1)


async def test_a_paused_schedule_does_not_tick(database: DatabaseDriver, migrated_url: str) -> None:
    await put_due(database, migrated_url)
    assert await database.schedules.pause("digest")
    assert not await database.schedules.pause("digest")
    assert await database.schedules.next_due([]) == []
    await database.schedules.tick("digest", {})
    assert await database.jobs.list_jobs() == []
    await database.schedules.put("digest", definition("2h"))
    assert (await stored(database)).next_at is None, "a change does not resume it"
    assert await database.schedules.resume("digest")
    assert not await database.schedules.resume("digest")
    next_at = (await stored(database)).next_at
    assert next_at is not None
    assert next_at > await database.now(), "ticks of the pause are left out"


async def test_a_job_now_and_jobs_of_the_past(database: DatabaseDriver, migrated_url: str) -> None:
    tick = await put_due(database, migrated_url)
    await database.schedules.tick("digest", {})
    before = await stored(database)
    assert await database.schedules.run("digest", {}) is not None
    assert await database.schedules.run("nothing", {}) is None
    past = [tick - timedelta(hours=hour) for hour in (2, 1, 0)]
    future = tick + timedelta(hours=1)
    assert await database.schedules.backfill("digest", [*past, future], {}) == past[:2]
    assert await database.schedules.backfill("digest", past, {}) == []
    after = await stored(database)
    assert (after.next_at, after.last_tick) == (before.next_at, before.last_tick)
    assert len(await ticks(database)) == 4


async def test_summer_time_in_a_database(database: DatabaseDriver, migrated_url: str) -> None:
    """Both changes, by the schedule's own tick: what is stored are moments, not times on a wall."""
    for tick, following in (
        (utc(2026, 3, 28, 1, 30), utc(2026, 3, 29, 1, 0)),
        (utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)),
    ):
        timetable = definition("30 2 * * *", tz="Europe/Berlin").timetable
        assert timetable.after(tick) == following
        await database.schedules.put("digest", definition("30 2 * * *", tz="Europe/Berlin"))
        set_next(database, migrated_url, "digest", following)
        assert (await stored(database)).next_at == following


@pytest.mark.parametrize("first", ["tick", "settlement"])
async def test_a_tick_beside_the_end_of_the_running_job(
    database: DatabaseDriver, other: DatabaseDriver, migrated_url: str, first: str
) -> None:
    """Whichever commits first, the next job runs: it never waits for one that has ended."""
    tick = await put_due(database, migrated_url, overlap="queue_one")
    await database.schedules.tick("digest", {})
    claim = await claim_one(database)
    make_room(database, migrated_url, 1)
    claim = with_headers(claim, await database.jobs.list_jobs())
    set_next(database, migrated_url, "digest", tick)
    done, go_on = asyncio.Event(), asyncio.Event()
    stopped = database if first == "tick" else other
    write_plain = stopped.database.write_plain

    async def stopping(work, **options):
        async def stop(connection):
            result = await work(connection)
            done.set()
            await go_on.wait()
            return result

        return await write_plain(stop, **options)

    stopped.database.write_plain = stopping  # type: ignore[method-assign, assignment]
    completed = Settlement.completed(claim.fence).leaving(claim.policies or 0, claim.headers)
    works = [database.schedules.tick("digest", {}), other.jobs.settle([completed])]
    if first == "settlement":
        works.reverse()
    one = asyncio.create_task(works[0])
    await done.wait()
    two = asyncio.create_task(works[1])
    await asyncio.wait([two], timeout=0.3)
    go_on.set()
    await asyncio.gather(one, two)
    assert (await claim_one(other)).fence.job_id != claim.fence.job_id
