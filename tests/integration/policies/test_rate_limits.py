"""Rate limits on each database: what starts when, what waits, and what it costs."""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import text

import outbox
from outbox import RateLimit, Worker, clock, limits
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import Claim, JobState
from outbox.envelope import Envelope, serialize_many
from outbox.errors import InvalidOption
from outbox.job import Job
from outbox.options import JobOptions
from outbox.policies.rate_limits import Terms, rate_id
from outbox.policies.slots import slot_of
from outbox.relay.relay import Relay
from outbox.relay.route import to_relay_row
from outbox.settlement import MoveRates, Settlement
from outbox.testing import travel
from tests.conformance.jobs import FAILURE, envelope
from tests.servers import sql
from tests.support.every_engine import before_each_statement
from tests.support.parked_jobs import park

BEHIND_A_LIMIT = int(os.environ.get("OUTBOX_TEST_JOBS_BEHIND_A_LIMIT", "2000"))
MAIL = RateLimit("tests.mail", "2/h", burst=2)
SMS = RateLimit("tests.sms", "1/h")


class Hourly(Job):
    rate = "3/h"
    burst = 3
    number: int = 0

    async def handle(self) -> None: ...


class ByKey(Job):
    rate = "1/h"
    rate_key = "tenant"
    tenant: str

    async def handle(self) -> None: ...


class Heavy(Job):
    rate = MAIL
    weight: int

    def cost(self) -> int:
        return self.weight

    async def handle(self) -> None: ...


class Light(Job):
    rate = MAIL

    async def handle(self) -> None: ...


class Both(Job):
    rate: ClassVar[Any] = [SMS, MAIL]

    async def handle(self) -> None: ...


class Soon(Job):
    rate = "5/s"

    async def handle(self) -> None: ...


async def insert(driver: DatabaseDriver, *jobs: Job, **options: Any) -> list[Envelope]:
    envelopes = serialize_many(jobs, JobOptions.checked(**options))
    await driver.jobs.insert(envelopes)
    return envelopes


async def started(driver: DatabaseDriver, limit: int = 50) -> list[Claim]:
    return await driver.jobs.claim(["default"], limit, 7_200)


async def ids(driver: DatabaseDriver, limit: int = 50) -> list[Any]:
    return [claim.fence.job_id for claim in await started(driver, limit)]


async def test_a_burst_starts_and_the_others_wait(database: DatabaseDriver) -> None:
    jobs = await insert(database, *(Hourly(number=number) for number in range(10)))
    plain = envelope()
    await database.jobs.insert([plain])
    assert sorted(await ids(database)) == sorted([*(job.id for job in jobs[:3]), plain.id])
    states = [job.state for job in await database.jobs.list_jobs()]
    assert (states.count(JobState.PARKED), states.count(JobState.DELAYED)) == (6, 1)
    assert all(job.attempts == 0 for job in await database.jobs.list_jobs() if job.state is not JobState.RESERVED)
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert 1190 < due <= 1200.1


async def test_what_takes_a_limit_for_ever_starts_and_keeps_no_other_job_waiting(database: DatabaseDriver) -> None:
    """Its time is later than a BIGINT holds: a claim that cannot write it would be all that a worker does."""
    first, _ = await insert(database, *(Hourly() for _ in range(2)), rate="1/d", burst=1_000_000, cost=1_000_000)
    slow = await insert(database, *(ByKey(tenant="a") for _ in range(2)), rate="1/1000000d")
    plain = envelope()
    await database.jobs.insert([plain])
    assert sorted(await ids(database)) == sorted([first.id, slow[0].id, plain.id])
    assert await started(database) == []


async def test_waiting_jobs_start_one_by_one_in_the_order_in_which_they_came(database: DatabaseDriver) -> None:
    jobs = await insert(database, *(Soon() for _ in range(5)))
    found: list[Any] = []
    probes = 0
    while len(found) < 5:
        claimed = await ids(database)
        probes += 1
        assert len(claimed) <= 1
        found += claimed
        due = (await database.jobs.next_due(["default"])).due
        await asyncio.sleep(min(due or 0, 1))
    assert found == [job.id for job in jobs]
    assert probes <= 7


async def test_each_key_has_a_limit_of_its_own(database: DatabaseDriver) -> None:
    jobs = await insert(database, *(ByKey(tenant=tenant) for tenant in "aabbc"))
    assert sorted(await ids(database)) == sorted([jobs[0].id, jobs[2].id, jobs[4].id])


async def test_a_claim_sends_as_many_statements_for_forty_keys_as_for_two(database: DatabaseDriver) -> None:
    """It makes their states, lets the next jobs in and, an hour later, starts those and moves on."""
    sent: dict[int, list[int]] = {2: [], 40: []}
    for keys, counts in sent.items():
        for hours in (0, 3):
            jobs = [ByKey(tenant=f"{keys}.{number % keys}") for number in range(3 * keys)]
            statements: list[object] = []
            with travel(seconds=3_600 * hours):
                await insert(database, *jobs)
                with before_each_statement(lambda *given, sent=statements: sent.append(given[2])):
                    assert len(await started(database, 3 * keys)) == keys
                await database.queues.clear("default")
            counts.append(len(statements))
    assert sent[2] == sent[40]
    assert min(sent[2]) > 5, "statements are counted"


async def test_classes_share_a_named_limit_and_cost_counts(database: DatabaseDriver) -> None:
    first, second = await insert(database, Heavy(weight=2), Light())
    assert await ids(database) == [first.id]
    stored = await database.jobs.get(second.id)
    assert stored is not None
    [line] = await database.policies.explain(stored)
    assert line.startswith("parked: rate tests.mail (2/h), next at ")
    assert line.endswith(" UTC, 0 ahead")


async def test_all_of_several_limits_have_to_admit(database: DatabaseDriver) -> None:
    first, _, third = await insert(database, Both(), Both(), Light())
    assert sorted(await ids(database)) == sorted([first.id, third.id])
    by_name = {limit.name: limit for limit in await database.limits.list()}
    assert (by_name["tests.sms"].left, by_name["tests.sms"].waiting) == (0, 1)
    assert (by_name["tests.mail"].left, by_name["tests.mail"].waiting) == (0, 0)


async def test_a_new_job_does_not_overtake_those_that_wait(database: DatabaseDriver) -> None:
    jobs = await insert(database, Light(), Heavy(weight=2), Light())
    assert await ids(database) == [jobs[0].id]
    [late] = await insert(database, Light())
    assert await ids(database) == []
    stored = await database.jobs.get(late.id)
    assert stored is not None
    assert stored.state is JobState.PARKED


async def test_a_changed_limit_counts_at_once_and_is_reset(database: DatabaseDriver) -> None:
    jobs = await insert(database, *(Light() for _ in range(6)))
    assert len(await ids(database)) == 2
    await database.limits.set("tests.mail", Terms(name="tests.mail", rate="1000/s", burst=100))
    await asyncio.sleep(0.2)
    found = [*await ids(database), *await ids(database)]
    assert sorted(found) == sorted(job.id for job in jobs[2:])
    [status] = await database.limits.list()
    assert (status.rate, status.is_set) == ("1000/s", True)
    assert await database.limits.reset("tests.mail")
    assert not await database.limits.reset("tests.mail")


async def test_after_a_429_the_limit_admits_nothing_and_the_attempt_is_given_back(database: DatabaseDriver) -> None:
    await insert(database, Hourly(), Hourly())
    [claim] = await started(database, 1)
    put_back = Settlement.snoozed(claim.fence, 300)._replace(effects=(MoveRates(claim.headers, 300.0),))
    await database.jobs.settle([put_back.leaving(claim.policies or 0, claim.headers)])
    assert await ids(database) == []
    stored = await database.jobs.get(claim.fence.job_id)
    assert stored is not None
    assert stored.attempts == 0
    due = (await database.jobs.next_due(["default"])).due
    assert due is not None
    assert 240 < due <= 300.1


async def test_the_next_one_gets_its_time_when_the_first_is_removed(database: DatabaseDriver) -> None:
    jobs = await insert(database, *(ByKey(tenant="a") for _ in range(3)))
    assert await ids(database) == [jobs[0].id]
    await database.jobs.cancel([jobs[1].id])
    stored = await database.jobs.get(jobs[2].id)
    assert stored is not None
    assert stored.state is JobState.DELAYED


async def test_upkeep_finds_that_an_application_has_removed_the_first(
    database: DatabaseDriver, migrated_url: str
) -> None:
    jobs = await insert(database, *(ByKey(tenant="a") for _ in range(3)))
    await ids(database)
    with sql.connection(migrated_url) as connection:
        connection.execute(text("DELETE FROM queue_jobs WHERE id = :id"), {"id": jobs[1].id.bytes})
    await database.policies.upkeep()
    stored = await database.jobs.get(jobs[2].id)
    assert stored is not None
    assert stored.state is JobState.DELAYED


async def test_an_attempt_that_fails_and_its_retry_both_count(database: DatabaseDriver) -> None:
    await insert(database, Light())
    for _ in range(2):
        [claim] = await started(database)
        end = Settlement.retried(claim.fence, 0.0, FAILURE)
        await database.jobs.settle([end.leaving(claim.policies or 0, claim.headers)])
        await asyncio.sleep(0.01)
    assert await started(database) == []


async def test_what_waits_costs_claims_nothing(database: DatabaseDriver, migrated_url: str) -> None:
    await insert(database, *(ByKey(tenant="a") for _ in range(BEHIND_A_LIMIT)))
    await park(database)
    with sql.connection(migrated_url) as connection:
        due = connection.execute(text("SELECT COUNT(*) FROM queue_jobs WHERE available_at < '9999-01-01'")).scalar()
    assert due == 2, "the one that runs, and the next"
    [plain] = await insert(database, Hourly())
    assert await ids(database) == [plain.id]


async def test_claimers_that_meet_never_exceed_a_limit(database: DatabaseDriver, migrated_url: str) -> None:
    await insert(database, *(Hourly() for _ in range(40)))
    drivers = [DatabaseDriver(migrated_url) for _ in range(6)]
    try:
        found = await asyncio.gather(*(driver.jobs.claim(["default"], 3, 30) for driver in drivers))
    finally:
        for driver in drivers:
            await driver.close()
    assert sum(map(len, found)) <= 3
    await asyncio.sleep(0.3)
    more = [len(await ids(database)) for _ in range(3)]
    assert sum(map(len, found)) + sum(more) == 3


async def test_taking_outside_jobs(database: DatabaseDriver) -> None:
    terms = MAIL.terms
    assert [await database.limits.take(terms, 1, None) for _ in range(2)] == [0.0, 0.0]
    assert await database.limits.take(terms, 1, None) > 1700
    assert await database.limits.take(terms, 1, "other key") == 0.0
    await insert(database, Light())
    assert await ids(database) == []


class PerNumber(Job):
    rate = "1/h"
    rate_key = "number"
    number: int | bool | UUID

    async def handle(self) -> None: ...


@pytest.mark.parametrize("value", [7, True, UUID(int=7)])
async def test_a_key_is_taken_by_the_value_of_its_field(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch, value: int | UUID
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    assert await limits.take(PerNumber.name, key=value, timeout=0)
    assert not await limits.take(PerNumber.name, key=value, timeout=0)
    _, other = await insert(database, PerNumber(number=value), PerNumber(number=8))
    assert await ids(database) == [other.id]
    with pytest.raises(InvalidOption, match="a key is a value of a rate_key, which JSON can hold"):
        await limits.take(PerNumber.name, key=object())
    await outbox.disconnect()


class PerCustomer(Job):
    rate = "60/h"
    concurrency_key = "customer"
    customer: int

    async def handle(self) -> None: ...


async def test_a_job_that_waits_for_its_key_is_in_the_way_of_no_other(database: DatabaseDriver) -> None:
    """It was the next of its limit when another job took the last place of its key."""
    await insert(database, PerCustomer(customer=9))
    [_] = await started(database)
    [first] = await insert(database, PerCustomer(customer=1))
    assert await started(database) == []
    [second] = await insert(database, PerCustomer(customer=1))
    assert await started(database) == []
    [other] = await insert(database, PerCustomer(customer=2))
    assert await started(database) == []
    with travel(seconds=61):
        [running] = await started(database)
        assert running.fence.job_id == first.id
    with travel(seconds=122):
        assert await ids(database) + await ids(database) == [other.id]
        await database.jobs.settle(
            [Settlement.completed(running.fence).leaving(running.policies or 0, running.headers)]
        )
        assert await ids(database) == []
    with travel(seconds=183):
        assert await ids(database) == [second.id]


class Crowd(Job):
    concurrency_key = "tenant"
    concurrency_limit = 1
    tenant: str = "a"

    async def handle(self) -> None: ...


async def test_a_limit_of_running_jobs_is_changed_at_run_time(database: DatabaseDriver) -> None:
    await insert(database, *(Crowd() for _ in range(8)))
    [first] = await started(database)
    await database.limits.set(Crowd.name, concurrency=3)
    await database.jobs.settle([Settlement.completed(first.fence).leaving(first.policies or 0, first.headers)])
    running = await started(database)
    assert len(running) == 3
    await database.limits.set(Crowd.name, concurrency=2)
    ends = [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in running]
    await database.jobs.settle(ends)
    assert len(await started(database)) == 2
    [status] = await database.limits.list()
    assert (status.name, status.concurrency) == (Crowd.name, 2)


async def test_a_claim_leaves_what_another_one_is_deciding_about(database: DatabaseDriver, migrated_url: str) -> None:
    """The other claim has taken the limit, and has not committed yet."""
    if migrated_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    [job] = await insert(database, ByKey(tenant="a"))
    slot = slot_of(rate_id(ByKey.name, "a"))
    other = DatabaseDriver(migrated_url)
    try:
        async with other.database.engine.connect() as connection:
            await connection.execute(text("SELECT slot FROM queue_rate_slots WHERE slot = :s FOR UPDATE"), {"s": slot})
            before = await database.jobs.get(job.id)
            async with asyncio.timeout(40):
                assert await ids(database) == []
            stored = await database.jobs.get(job.id)
            assert before is not None
            assert stored is not None
            assert stored.available_at > before.available_at, "it is put off"
            assert stored.attempts == 0
            await connection.rollback()
    finally:
        await other.close()
    await asyncio.sleep(0.26)
    assert await ids(database) == [job.id]


class Refused(Job):
    rate = "50/s"
    max_tries = 1
    seen: ClassVar[list[tuple[int, float]]] = []
    all_seen: ClassVar[asyncio.Event]

    async def handle(self) -> None:
        Refused.seen.append((self.context.attempt, clock.now()))
        if len(Refused.seen) == 1:
            self.context.rate_limited(retry_after=1.0)
        if len(Refused.seen) == 4:
            Refused.all_seen.set()


class Held(Job):
    rate = "50/s"
    started: ClassVar[asyncio.Event]
    go_on: ClassVar[asyncio.Event]
    second: ClassVar[asyncio.Event]

    async def handle(self) -> None:
        if Held.started.is_set():
            Held.second.set()
            return
        Held.started.set()
        await Held.go_on.wait()
        self.context.rate_limited(retry_after=1.0)


async def test_a_worker_moves_the_limit_after_a_429_and_uses_no_attempt(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    Refused.seen, Refused.all_seen = [], asyncio.Event()
    await insert(database, *(Refused() for _ in range(3)))
    async with asyncio.timeout(30), Worker(queue="default", concurrency=1):
        await Refused.all_seen.wait()
    assert [attempt for attempt, _ in Refused.seen] == [1] * 4
    assert Refused.seen[1][1] - Refused.seen[0][1] >= 0.99


async def test_a_worker_claims_nothing_before_its_429_is_in_the_store(
    database: DatabaseDriver, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if migrated_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time: no claim comes before the end either")
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    Held.started, Held.go_on, Held.second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    first, _ = await insert(database, Held(), Held())
    other = DatabaseDriver(migrated_url)
    try:
        async with asyncio.timeout(30), Worker(queue="default", concurrency=1):
            await Held.started.wait()
            async with other.database.engine.connect() as connection:
                row = {"id": first.id.bytes}
                await connection.execute(text("SELECT id FROM queue_jobs WHERE id = :id FOR UPDATE"), row)
                Held.go_on.set()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await Held.second.wait()
                refused = clock.now()
            await Held.second.wait()
            assert clock.now() - refused >= 0.95
    finally:
        await other.close()


@pytest.mark.redis
async def test_jobs_reach_redis_when_their_limit_admits_them(database: DatabaseDriver, redis_url: str) -> None:
    redis = RedisDriver(redis_url)
    try:
        relay = Relay(database, redis, "redis")
        sent = [to_relay_row(each, "redis") for each in serialize_many([Hourly() for _ in range(5)])]
        await database.jobs.insert(sent)
        assert await relay.move() == 3
        assert await relay.move() == 0
        running = await redis.jobs.claim(["default"], 10, 30)
        assert {claim.fence.job_id for claim in running} == {envelope.id for envelope in sent[:3]}
        ends = [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in running]
        await redis.jobs.settle(ends)
        await relay.remove_ended()
        waiting = await database.jobs.list_jobs()
        assert sorted(job.id for job in waiting) == sorted(envelope.id for envelope in sent[3:])
        assert all(job.attempts == 0 for job in waiting)
    finally:
        await redis.close()
