"""Limits, order and turns of jobs with keys, on every database."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.plans import run
from outbox.drivers.database.jobs.cancel import cancel_in_session
from outbox.drivers.database.jobs.insert import own_insert_statements
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.leaving import leaving
from outbox.drivers.database.tables import SEEDS
from outbox.drivers.values import Claim, JobState, PolicyNews
from outbox.envelope import Envelope, serialize
from outbox.events import KeyBlocked
from outbox.ids import JobId
from outbox.options import JobOptions
from outbox.policies.keys import ROUND
from outbox.policies.slots import SLOTS
from outbox.settlement import Outcome, Settlement
from outbox.wakeups.base import CANCELLED
from tests.conformance.jobs import FAILURE, claim_one, envelope
from tests.servers import sql
from tests.support.orders import sync_engine
from tests.support.row_locks import arrivals

HOUR = 3600.0


class Limited(Job):
    concurrency_key = "customer_id"
    concurrency_limit = 2
    customer_id: int = 7

    async def handle(self) -> None: ...


class Ordered(Job):
    ordering_key = "aggregate_id"
    aggregate_id: int = 1

    async def handle(self) -> None: ...


def limited(customer: int = 7, **options: object) -> Envelope:
    return serialize(Limited(customer_id=customer), JobOptions.checked(**options))  # type: ignore[arg-type]


def ordered(aggregate: int = 1, **options: object) -> Envelope:
    return serialize(Ordered(aggregate_id=aggregate), JobOptions.checked(**options))  # type: ignore[arg-type]


def ids(claims: list[Claim]) -> list[JobId]:
    return [claim.fence.job_id for claim in claims]


async def claim(driver: DatabaseDriver, limit: int = 10, lease: float = 30.0) -> list[Claim]:
    return await driver.jobs.claim(["default"], limit, lease)


async def end(driver: DatabaseDriver, settlement: Settlement, of: Claim) -> None:
    settled = await driver.jobs.settle([settlement.leaving(of.policies or 0, of.headers)])
    assert len(settled.accepted) == 1


async def complete(driver: DatabaseDriver, of: Claim) -> None:
    await end(driver, Settlement.completed(of.fence), of)


async def test_no_more_jobs_of_a_key_run_than_its_limit(database: DatabaseDriver) -> None:
    jobs = [limited() for _ in range(5)]
    await database.jobs.insert([*jobs, other := limited(8), plain := envelope()])
    claims = await claim(database)
    assert set(ids(claims)) == {jobs[0].id, jobs[1].id, other.id, plain.id}
    assert await claim(database) == []
    for number in (2, 3, 4):
        await complete(database, next(each for each in claims if each.fence.job_id != other.id and each.policies))
        claims = [*claims[1:], one := await claim_one(database)]
        assert one.fence.job_id == jobs[number].id
        assert await claim(database) == []


async def test_ordered_jobs_run_one_at_a_time_in_the_order_of_their_dispatch(database: DatabaseDriver) -> None:
    jobs = [ordered(), ordered(priority=0), ordered(queue="default"), ordered()]
    for job in reversed(jobs):
        await database.jobs.insert([job])
    await database.jobs.insert([other := ordered(2)])
    first = await claim(database)
    assert set(ids(first)) == {jobs[3].id, other.id}
    current = next(each for each in first if each.fence.job_id == jobs[3].id)
    for job in (jobs[2], jobs[1], jobs[0]):
        assert await claim(database) == []
        await complete(database, current)
        current = await claim_one(database)
        assert current.fence.job_id == job.id


async def test_a_retry_blocks_its_key(database: DatabaseDriver) -> None:
    first, second = ordered(), ordered()
    await database.jobs.insert([first, second])
    held = await claim_one(database)
    await end(database, Settlement.retried(held.fence, HOUR, FAILURE), held)
    assert await claim(database) == []
    stored = await database.jobs.get(second.id)
    assert stored is not None
    assert stored.state in {JobState.PARKED, JobState.READY}


async def test_a_delayed_job_takes_its_place_when_it_is_due(database: DatabaseDriver) -> None:
    delayed, second = ordered(delay=HOUR), ordered()
    await database.jobs.insert([delayed, second])
    assert ids(await claim(database)) == [second.id]


async def test_a_failed_job_blocks_its_key_until_it_is_retried(database: DatabaseDriver) -> None:
    first, second = ordered(), ordered()
    await database.jobs.insert([first, second])
    held = await claim_one(database)
    settled = await database.jobs.settle(
        [Settlement.failed(held.fence, FAILURE).leaving(held.policies or 0, held.headers)]
    )
    assert settled.news.events == (KeyBlocked("aggregate:1", first.id),)
    assert await claim(database) == []
    assert await database.failed.retry([first.id]) == [first.id]
    again = await claim_one(database)
    assert again.fence.job_id == first.id
    await complete(database, again)
    assert (await claim_one(database)).fence.job_id == second.id


async def test_a_failed_job_that_is_skipped_lets_the_next_run_and_returns_to_the_head(database: DatabaseDriver) -> None:
    jobs = [ordered(on_failed="skip") for _ in range(3)]
    await database.jobs.insert(jobs)
    held = await claim_one(database)
    await end(database, Settlement.failed(held.fence, FAILURE), held)
    second = await claim_one(database)
    assert second.fence.job_id == jobs[1].id
    assert await database.failed.retry([jobs[0].id]) == [jobs[0].id]
    await complete(database, second)
    assert (await claim_one(database)).fence.job_id == jobs[0].id


@pytest.mark.parametrize("make", [limited, ordered])
async def test_the_slot_of_a_dead_worker_is_kept_for_its_job(database: DatabaseDriver, make: object) -> None:
    jobs = [make(concurrency_limit=1) if make is limited else ordered() for _ in range(2)]
    await database.jobs.insert(jobs)
    dead = await claim_one(database)
    await claim(database)
    await database.jobs.extend([dead.fence], 0.0)
    rescued = await claim_one(database)
    assert (rescued.fence.job_id, rescued.rescued) == (jobs[0].id, True)
    assert await claim(database) == []
    await complete(database, rescued)
    assert (await claim_one(database)).fence.job_id == jobs[1].id


async def test_a_full_key_skips(database: DatabaseDriver) -> None:
    jobs = [limited(concurrency_limit=1, on_full="skip") for _ in range(3)]
    await database.jobs.insert(jobs)
    assert ids(await claim(database)) == [jobs[0].id]
    assert [job.id for job in await database.jobs.list_jobs()] == [jobs[0].id]


async def test_each_job_of_a_key_has_its_own_options(database: DatabaseDriver) -> None:
    """Those of a dispatch go before those of the class, whatever jobs a claim finds beside it."""
    await database.jobs.insert([limited()])
    first = await claim_one(database)
    jobs = [limited(concurrency_limit=1), limited(on_full="skip", concurrency_limit=1), limited(on_full="skip")]
    await database.jobs.insert([*jobs, late := limited(on_full="skip")])
    [beside] = await claim(database)
    assert beside.fence.job_id == jobs[2].id, "of the others one waits to be alone, and two are skipped"
    assert {job.id for job in await database.jobs.list_jobs()} == {first.fence.job_id, jobs[0].id, jobs[2].id}
    assert await database.jobs.get(late.id) is None
    await database.jobs.insert([newer := limited(on_full="replace_running"), limited()])
    [new] = await claim(database)
    assert new.fence.job_id == newer.id
    assert await database.jobs.get(first.fence.job_id) is None, "the oldest running one"


async def test_a_newer_job_replaces_the_running_one(database: DatabaseDriver) -> None:
    jobs = [limited(concurrency_limit=1, on_full="replace_running") for _ in range(3)]
    await database.jobs.insert(jobs[:1])
    old = await claim_one(database)
    await database.jobs.insert(jobs[1:])
    news: list[PolicyNews] = []
    assert database.policies is not None
    database.policies.on_news = news.append
    [new] = await claim(database)
    assert new.fence.job_id == jobs[2].id
    assert any(CANCELLED in each.queues for each in news), "its worker is told"
    assert (await database.jobs.extend([old.fence], 30)).lost == {old.fence}
    assert [job.id for job in await database.jobs.list_jobs()] == [jobs[2].id]


async def test_cancelling_lets_the_next_in(database: DatabaseDriver) -> None:
    jobs = [ordered() for _ in range(3)]
    await database.jobs.insert(jobs)
    await claim_one(database)
    await claim(database)
    assert await database.jobs.cancel([jobs[0].id]) == [jobs[0].id]
    assert (await claim_one(database)).fence.job_id == jobs[1].id


async def test_an_operator_skips_a_failed_job(database: DatabaseDriver) -> None:
    jobs = [ordered() for _ in range(2)]
    await database.jobs.insert(jobs)
    held = await claim_one(database)
    await claim(database)
    await end(database, Settlement.failed(held.fence, FAILURE), held)
    assert await claim(database) == []
    assert await database.policies.blocked_keys("aggregate:2") == {}
    assert await database.policies.blocked_keys() == {jobs[0].id: "aggregate:1"}
    assert await database.policies.skip_failed(list(await database.policies.blocked_keys("aggregate:1"))) == [
        jobs[0].id
    ]
    assert (await claim_one(database)).fence.job_id == jobs[1].id
    assert await database.failed.get(jobs[0].id) is not None


async def test_a_forgotten_job_blocks_no_more(database: DatabaseDriver) -> None:
    jobs = [ordered() for _ in range(2)]
    await database.jobs.insert(jobs)
    held = await claim_one(database)
    await claim(database)
    await end(database, Settlement.failed(held.fence, FAILURE), held)
    await database.failed.forget([jobs[0].id])
    assert (await claim_one(database)).fence.job_id == jobs[1].id


@pytest.mark.parametrize("running", [True, False])
async def test_what_a_session_cancels_is_forgotten_by_upkeep(
    database: DatabaseDriver, migrated_url: str, running: bool
) -> None:
    jobs = [ordered() for _ in range(3)]
    await database.jobs.insert(jobs)
    held = await claim_one(database)
    await claim(database)
    if not running:
        await complete(database, held)
    gone = jobs[0] if running else jobs[1]
    engine = sync_engine(migrated_url)
    with Session(engine) as session, session.begin():
        assert cancel_in_session(session, gone.id)
    engine.dispose()
    assert await claim(database) == []
    await database.policies.upkeep()
    assert (await claim_one(database)).fence.job_id == jobs[1 if running else 2].id


async def test_a_head_that_is_gone_is_passed_by_the_next_claim(database: DatabaseDriver, migrated_url: str) -> None:
    first, second = ordered(), ordered()
    await database.jobs.insert([first, second])
    engine = sync_engine(migrated_url)
    with Session(engine) as session, session.begin():
        assert cancel_in_session(session, first.id)
    engine.dispose()
    await claim(database)
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert due < 0.251, "the clock of SQLite has milliseconds"


async def test_operators_see_why_a_job_is_parked(database: DatabaseDriver) -> None:
    jobs = [limited(), limited(), limited(), limited(), ordered(), ordered()]
    await database.jobs.insert(jobs)
    await claim(database)
    stored = [await database.jobs.get(job.id) for job in jobs]
    lines = [await database.policies.explain(job) for job in stored if job is not None]
    assert lines[0] == ["concurrency key `customer:7`, 2 of 2 held, 0 ahead"]
    assert lines[3] == ["parked: key `customer:7` is full, 1 ahead"]
    await database.limits.set(Limited.name, concurrency=1)
    [first, *_] = [job for job in stored if job is not None]
    assert await database.policies.explain(first) == ["concurrency key `customer:7`, 2 of 1 held, 0 ahead"]
    assert lines[5] == ["parked: key `aggregate:1` runs one job at a time, 0 ahead"]


class Import(Job):
    fair_key = "tenant_id"
    tenant_id: str

    async def handle(self) -> None: ...


def turn(tenant: str, **options: object) -> Envelope:
    return serialize(Import(tenant_id=tenant), JobOptions.checked(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 7, 50])
async def test_the_job_of_one_tenant_waits_at_most_two_rounds_for_those_of_another(
    database: DatabaseDriver, at_once: int
) -> None:
    many = [turn("a") for _ in range(3_000)]
    await database.jobs.insert(many)
    assert await claim(database, at_once)
    await database.jobs.insert([one := turn("b")])
    before = 0
    while one.id not in ids(claims := await claim(database, at_once)):
        before += len(claims)
        assert before <= 2 * ROUND
        for each in claims:
            await complete(database, each)


async def test_a_first_round_runs_before_all_jobs_of_the_key_are_parked(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """And no second one: a job of another tenant behind them is found first."""
    await database.jobs.insert([turn("a") for _ in range(7_000)])
    assert len(await claim(database, 50)) == ROUND
    with sql.connection(migrated_url) as connection:
        parked = connection.scalar(text("SELECT COUNT(*) FROM queue_jobs WHERE available_at > '9000-01-01'"))
    assert 2_000 <= int(parked or 0) <= 2_100
    await database.jobs.insert([one := turn("b")])
    claims = await claim(database, 50)
    assert one.id in ids(claims)
    assert len(claims) <= ROUND + 1


async def test_turns_lose_no_job_and_follow_weights(database: DatabaseDriver) -> None:
    jobs = [turn("a") for _ in range(120)] + [turn("b", fair_weight=2) for _ in range(120)] + [turn("c")]
    tenants = {job.id: job.payload for job in jobs}
    await database.jobs.insert(jobs)
    order: list[JobId] = []
    while claims := await claim(database, 30):
        order += ids(claims)
        for each in claims:
            await complete(database, each)
    assert len(set(order)) == len(order) == len(jobs)
    early = [tenants[job_id] for job_id in order[:120]]
    assert early.count('{"tenant_id":"b"}') >= 1.3 * early.count('{"tenant_id":"a"}')
    assert early.count('{"tenant_id":"c"}') == 1


@pytest.mark.parametrize("kind", ["limited", "ordered"])
async def test_many_workers_at_once_end_all_jobs_of_keys(
    database: DatabaseDriver, migrated_url: str, kind: str
) -> None:
    make = limited if kind == "limited" else ordered
    most = {"limited": 2, "ordered": 1}[kind]
    jobs = [make(number % 3) for number in range(60)]
    await database.jobs.insert(jobs)
    key_of = {job.id: json.loads(job.payload) for job in jobs}
    running: dict[str, int] = {}
    begun: list[JobId] = []
    """Of a key, none begins before the end of the one before is committed. How soon a worker hears of an end varies."""
    ended: list[JobId] = []

    async def work(driver: DatabaseDriver) -> None:
        while len(ended) < len(jobs):
            for each in await driver.jobs.claim(["default"], 3, 30):
                begun.append(each.fence.job_id)
                key = str(key_of[each.fence.job_id])
                running[key] = running.get(key, 0) + 1
                assert running[key] <= most
                await asyncio.sleep(0)
                running[key] -= 1
                await complete(driver, each)
                ended.append(each.fence.job_id)

    drivers = [DatabaseDriver(migrated_url) for _ in range(3)]
    async with asyncio.timeout(120):
        await asyncio.gather(*(work(driver) for driver in drivers))
    for driver in drivers:
        await driver.close()
    assert len(set(ended)) == len(jobs)
    if kind == "ordered":
        for number in range(3):
            mine = [job.id for job in jobs[number::3]]
            assert [job_id for job_id in begun if job_id in mine] == mine


class Shared(Job):
    """One at a time of all tenants, in the order of each aggregate, and tenants take turns."""

    concurrency_key = "service"
    fair_key = "tenant"
    ordering_key = "aggregate"
    service: str = "api"
    tenant: str = "a"
    aggregate: str | None = None

    async def handle(self) -> None: ...


async def test_a_job_that_another_key_parks_keeps_no_place(database: DatabaseDriver) -> None:
    """Of a job that waits for its turn, the others of its concurrency key would wait for ever."""
    first, *early = (serialize(Shared()) for _ in range(3))
    await database.jobs.insert([first])
    running = await claim_one(database)
    await database.jobs.insert(early)
    assert await claim(database) == []
    later = [serialize(Shared()) for _ in range(30)]
    await database.jobs.insert(later)
    ended = []
    for _ in range(1 + len(early) + len(later)):
        await complete(database, running)
        ended.append(running.fence.job_id)
        for _ in range(50):  # claims that only park
            if claims := await claim(database, 1):
                running = claims[0]
                assert await claim(database, 50) == []
                break
    assert sorted(ended) == sorted(job.id for job in (first, *early, *later))
    assert await database.jobs.list_jobs() == []


async def test_a_blocked_key_takes_no_turns_of_its_tenant(database: DatabaseDriver) -> None:
    blocking, *behind = (serialize(Shared(service=str(number), aggregate="1")) for number in range(40))
    await database.jobs.insert([blocking, *behind])
    running = await claim_one(database)
    assert await claim(database, 50) == []
    other = serialize(Shared(service="other", aggregate="2"))
    await database.jobs.insert([other])
    await end(database, Settlement.failed(running.fence, FAILURE), running)
    await database.policies.upkeep()
    found: list[Claim] = []
    for _ in range(20):
        found += await claim(database, 10)
    assert ids(found) == [other.id]


async def test_a_job_that_its_rate_holds_back_keeps_no_place(database: DatabaseDriver) -> None:
    def of(tenant: str) -> Envelope:
        options = JobOptions.checked(rate="1/h", rate_key="tenant")
        return serialize(Shared(tenant=tenant), options)

    await database.jobs.insert([first := of("a")])
    running = await claim_one(database)
    await database.jobs.insert([held_back := of("a"), other := of("b")])
    assert await claim(database) == []
    await complete(database, running)
    found = await claim(database, 1) + await claim(database, 1)
    assert ids(found) == [other.id]
    assert {job.id for job in await database.jobs.list_jobs()} == {held_back.id, other.id}
    assert first.id not in ids(found)


@pytest.mark.parametrize("options", [{}, {"ordering": "strict"}])
async def test_tables_of_autogenerate_get_their_rows(
    database: DatabaseDriver, migrated_url: str, options: dict[str, str]
) -> None:
    with sql.connection(migrated_url) as connection:
        for table in ("queue_key_slots", "queue_lock_slots"):
            connection.execute(text(f"DELETE FROM {table}"))
    try:
        await database.jobs.insert([job := ordered(**options)])
        assert ids(await claim(database)) == [job.id]
    finally:
        with sql.connection(migrated_url) as connection:
            counts = []
            for table in ("queue_key_slots", "queue_lock_slots"):
                counts.append(connection.scalar(text(f"SELECT COUNT(*) FROM {table}")))
                connection.execute(text(SEEDS[table]))
    assert counts == [SLOTS, SLOTS if options else 0]


async def test_a_strict_dispatch_waits_for_the_one_before(
    database: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    first, second, other = (ordered(key, ordering="strict") for key in (1, 1, 2))
    waiter = DatabaseDriver(migrated_url)
    async with database.database.engine.connect() as one:
        await run(own_insert_statements(database.database.dialect, [first]), one)
        await asyncio.wait_for(database.jobs.insert([other]), 40)
        with arrivals(waiter) as seen:
            waiting = asyncio.create_task(waiter.jobs.insert([second]))
            await seen.wait_for(1)
        await one.commit()
        await waiting
    await waiter.close()
    assert set(ids(await claim(database))) == {first.id, other.id}


async def test_a_stale_end_in_a_batch_keeps_its_place_under_the_key(database: DatabaseDriver) -> None:
    """The jobs of a batch are deleted by their token at once. Where one has another owner, each is looked at."""
    jobs = [limited() for _ in range(4)]
    await database.jobs.insert(jobs)
    mine, lost = await claim(database)
    ends = [
        Settlement.completed(each.fence._replace(token=token)).leaving(each.policies or 0, each.headers)
        for each, token in ((mine, mine.fence.token), (lost, mine.fence.token[::-1]))
    ]
    settled = await database.jobs.settle(ends)
    assert (settled.accepted, settled.stale) == ((ends[0],), (ends[1],))
    assert ids(await claim(database)) == [jobs[2].id]
    await complete(database, lost)
    assert ids(await claim(database)) == [jobs[3].id]


@pytest.mark.parametrize("others", [0, 1])
async def test_claims_do_not_wait_for_a_settlement_of_the_key(
    database: DatabaseDriver, migrated_url: str, backend: str, others: int
) -> None:
    """The settlement holds the slot of the key: a claim leaves its jobs and takes others. The next claim finds them.
    Where there were no others, they are put off, so that workers do not ask again and again."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    first, second, free = ordered(), ordered(), [ordered(2)] * others
    await database.jobs.insert([first])
    held = await claim_one(database)
    await database.jobs.insert([second, *free])
    end_of = leaving(held.fence.job_id, held.policies or 0, held.headers, Outcome.COMPLETED)
    claimer = DatabaseDriver(migrated_url)
    async with database.database.engine.connect() as settling:
        await run(registry.settled(database.database.dialect, [end_of]), settling)
        before = await due_at(claimer, second)
        claims = await asyncio.wait_for(claim(claimer), 40)
        assert ids(claims) == [each.id for each in free]
        assert (await due_at(claimer, second) > before) is (others == 0)
        put_off = (await claimer.jobs.next_due(["default"])).due
        await settling.execute(text("DELETE FROM queue_jobs WHERE id = :id"), {"id": first.id.bytes})
        await settling.commit()
    assert put_off is not None
    assert put_off <= (0 if others else 0.25)
    await asyncio.sleep(put_off)
    assert ids(await claim(claimer)) == [second.id]
    await claimer.close()


async def due_at(driver: DatabaseDriver, job: Envelope) -> datetime:
    stored = await driver.jobs.get(job.id)
    assert stored is not None
    return stored.available_at


async def test_a_dispatch_waits_for_no_worker(database: DatabaseDriver, migrated_url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    await database.jobs.insert([first := ordered(), ordered(), limited()])
    held = await claim_one(database)
    end_of = leaving(held.fence.job_id, held.policies or 0, held.headers, Outcome.COMPLETED)
    application = DatabaseDriver(migrated_url)
    async with database.database.engine.connect() as settling:
        await run(registry.settled(database.database.dialect, [end_of]), settling)
        await asyncio.wait_for(application.jobs.insert([ordered(), limited(), ordered(2)]), 40)
        await settling.rollback()
    await application.close()
    assert held.fence.job_id == first.id


async def test_an_operator_changes_a_limit_while_jobs_wait(database: DatabaseDriver) -> None:
    jobs = [limited() for _ in range(8)]
    await database.jobs.insert(jobs)
    first, second = await claim(database)
    assert await claim(database) == []
    news: list[PolicyNews] = []
    assert database.policies is not None
    database.policies.on_news = news.append
    await database.limits.set(Limited.name, concurrency=4)
    assert news == [PolicyNews(frozenset({"default"}))], "workers are told"
    assert len(await claim(database)) == 2
    await complete(database, first)
    assert len(await claim(database)) == 1
    await database.limits.set(Limited.name, concurrency=1)
    await complete(database, second)
    assert await claim(database) == []
    await database.limits.set(Limited.name, concurrency=3)
    assert await claim(database) == []
    await database.limits.set(Limited.name, concurrency=1)
    await database.limits.reset(Limited.name)
    assert await claim(database) == [], "three run, and the class lets two"
    await database.limits.set(Limited.name, concurrency=9)
    assert len(await claim(database)) == 3
