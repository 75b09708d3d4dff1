"""Jobs with several policies: what one of them holds back keeps no other job waiting for ever."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import text

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim
from outbox.envelope import Envelope, serialize
from outbox.ids import JobId
from outbox.options import JobOptions
from outbox.policies.keys import Kind, State
from outbox.settlement import Settlement
from outbox.testing import travel
from tests.conformance.jobs import FAILURE
from tests.servers import sql


class Task(Job):
    """Whose policies its dispatch gives."""

    aggregate: str | None = None
    service: str | None = None
    tenant: str | None = None
    account: str | None = None
    same: str = ""

    async def handle(self) -> None: ...


def task(options: dict[str, Any], **fields: str | None) -> Envelope:
    return serialize(Task(**fields), JobOptions.checked(**options))


def ids(claims: list[Claim]) -> list[JobId]:
    return [claim.fence.job_id for claim in claims]


async def claim(driver: DatabaseDriver, limit: int = 20) -> list[Claim]:
    return await driver.jobs.claim(["default"], limit, 30)


async def end(driver: DatabaseDriver, claims: list[Claim], *, retry: bool = False) -> None:
    ends = [
        Settlement.retried(each.fence, 0.0, FAILURE) if retry else Settlement.completed(each.fence) for each in claims
    ]
    await driver.jobs.settle(
        [done.leaving(each.policies or 0, each.headers) for done, each in zip(ends, claims, strict=True)]
    )


TURNS_IN_ORDER: dict[str, Any] = {"fair_key": "tenant", "ordering_key": "aggregate"}


@pytest.mark.parametrize("at_once", [1, 20])
@pytest.mark.parametrize("aggregates", [1, 3])
async def test_a_turn_that_waits_for_the_order_is_given_to_another(
    database: DatabaseDriver, at_once: int, aggregates: int
) -> None:
    """Of one tenant: the job that they wait for waits for a turn itself."""
    jobs = [task(TURNS_IN_ORDER, tenant="a", aggregate=str(number % aggregates)) for number in range(60)]
    await database.jobs.insert(jobs)
    order: list[JobId] = []
    for _ in range(400):  # some claims only park
        claims = await claim(database, at_once)
        order += ids(claims)
        await end(database, claims)
    for number in range(aggregates):
        mine = [job.id for job in jobs[number::aggregates]]
        assert [job_id for job_id in order if job_id in mine] == mine


async def test_a_failed_job_that_is_retried_has_its_turn_before_those_behind_it(database: DatabaseDriver) -> None:
    jobs = [task(TURNS_IN_ORDER, tenant="a", aggregate="1") for _ in range(40)]
    await database.jobs.insert(jobs)
    [first] = await claim(database)
    await database.jobs.settle([Settlement.failed(first.fence, FAILURE).leaving(first.policies or 0, first.headers)])
    await claim(database)
    await database.failed.retry([first.fence.job_id])
    order: list[JobId] = []
    while claims := await claim(database):
        order += ids(claims)
        await end(database, claims)
    assert order == [job.id for job in jobs]


async def test_upkeep_takes_back_turns_of_jobs_that_wait_for_their_order(
    database: DatabaseDriver, migrated_url: str
) -> None:
    """An earlier release left them so."""
    jobs = [task(TURNS_IN_ORDER, tenant="a", aggregate="1") for _ in range(12)]
    await database.jobs.insert(jobs)
    running = await claim(database)
    assert ids(running) == [jobs[0].id]
    given = f"UPDATE queue_keyed_jobs SET state = {State.LET_IN:d} WHERE kind = {Kind.FAIR:d} AND job_id <> :second"
    with sql.connection(migrated_url) as connection:
        connection.execute(text(given), {"second": jobs[1].id.bytes})
    await end(database, running)
    assert await claim(database) == []
    await database.policies.upkeep()
    order: list[JobId] = []
    while claims := await claim(database):
        order += ids(claims)
        await end(database, claims)
    assert order == [job.id for job in jobs[1:]]


@pytest.mark.parametrize(
    "options",
    [
        {"unique": ["same"], "unique_until": "end"},
        {"concurrency_key": "service"},
        {"concurrency_key": "service", "fair_key": "tenant"},
        {"ordering_key": "aggregate"},
    ],
    ids=lambda options: "+".join(options),
)
async def test_a_job_behind_one_that_its_rate_holds_back_runs(
    database: DatabaseDriver, options: dict[str, Any]
) -> None:
    """The same claim has found both, and parks the second before the rate refuses the first."""
    rated = options | {"rate": "1/h", "rate_key": "account"}
    fields = {"service": "s", "tenant": "t", "aggregate": "g", "same": "u"}
    await database.jobs.insert([task({"rate": "1/h", "rate_key": "account"}, account="a")])
    assert len(await claim(database)) == 1
    first, second = (task(rated, account=account, **fields) for account in "ab")
    await database.jobs.insert([first, second])
    ran: list[JobId] = []
    for _ in range(5):
        claims = await claim(database)
        ran += ids(claims)
        await end(database, claims)
    with travel(hours=1.1):
        for _ in range(5):
            claims = await claim(database)
            ran += ids(claims)
            await end(database, claims)
    assert sorted(ran) == sorted([first.id, second.id])


@pytest.mark.parametrize("seed", range(4))
async def test_no_job_is_left_whatever_its_policies(database: DatabaseDriver, seed: int) -> None:
    """Without upkeep."""
    chance = random.Random(seed)
    jobs = [_any_task(chance) for _ in range(120)]
    for start in range(0, len(jobs), 30):
        await database.jobs.insert(jobs[start : start + 30])
    running: list[Claim] = []
    async with asyncio.timeout(60):
        while running or await database.jobs.list_jobs(limit=1):
            running += await claim(database, chance.choice([1, 5, 20]))
            chance.shuffle(running)
            count = chance.randint(0, len(running))
            await end(database, running[:count], retry=chance.random() < 0.2)
            running = running[count:]
            await asyncio.sleep(0.005)


def _any_task(chance: random.Random) -> Envelope:
    choices: list[dict[str, Any]] = [
        {"ordering_key": "aggregate"},
        {"concurrency_key": "service", "concurrency_limit": chance.choice([1, 2, 3])},
        {"fair_key": "tenant"},
        {"unique": ["same"], "unique_until": "end"},
        {"rate": "500/s", "rate_key": "account"},
    ]
    options: dict[str, Any] = {"priority": chance.choice([0, 5])}
    for each in chance.sample(choices, chance.randint(1, len(choices))):
        options |= each
    names = ("aggregate", "service", "tenant", "account")
    fields = {name: chance.choice(["1", "1", "2", None]) for name in names}
    return task(options, same=chance.choice("uv"), **fields)
