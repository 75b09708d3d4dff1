"""What jobs behind one key cost the others: by the server's own count of rows, whatever their number."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import text

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Envelope, serialize, serialize_many
from outbox.settlement import Settlement
from tests.conformance.jobs import envelope
from tests.support.parked_jobs import park

FEW, MANY = 300, int(os.environ.get("OUTBOX_TEST_JOBS_BEHIND_A_KEY", "6000"))


class Charge(Job):
    concurrency_key = "customer_id"
    customer_id: int

    async def handle(self) -> None: ...


class Step(Job):
    ordering_key = "customer_id"
    customer_id: int

    async def handle(self) -> None: ...


async def rows_read(driver: DatabaseDriver) -> int:
    """By the session of the driver's only connection."""
    async with driver.database.engine.connect() as connection:
        rows = await connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read_%'"))
        return sum(int(row[1]) for row in rows)


async def cost_beside(url: str, kind: type[Job], waiting: int, jobs: list[Envelope]) -> tuple[int, int]:
    """Rows that are read to claim and settle ``jobs`` while ``waiting`` jobs of one key are parked, and to park them:
    for each of them."""
    driver = DatabaseDriver(url, pool_size=1)
    await driver.jobs.insert(serialize_many([kind(customer_id=1) for _ in range(waiting + 1)]))
    begun = await rows_read(driver)
    held = await park(driver, 20)
    parked = await rows_read(driver) - begun
    assert len(held) == 1
    await driver.jobs.insert(jobs)
    begun = await rows_read(driver)
    claims = await driver.jobs.claim(["default"], 20, 30)
    assert {claim.fence.job_id for claim in claims} == {job.id for job in jobs}
    ends = [Settlement.completed(claim.fence) for claim in claims]
    await driver.jobs.settle(
        [
            end.leaving(claim.policies, claim.headers) if claim.policies else end
            for end, claim in zip(ends, claims, strict=True)
        ]
    )
    cost = await rows_read(driver) - begun
    await driver.queues.clear("default")
    await driver.jobs.settle(
        [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in held]
    )
    await driver.close()
    return cost, parked // waiting


@pytest.mark.parametrize("kind", [Charge, Step])
async def test_jobs_behind_one_key_cost_the_others_nothing(migrated_url: str, backend: str, kind: type[Job]) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite counts no rows")

    def others() -> list[Envelope]:
        return [serialize(kind(customer_id=number)) for number in range(2, 8)] + [envelope() for _ in range(4)]

    few, each_of_few = await cost_beside(migrated_url, kind, FEW, others())
    many, each_of_many = await cost_beside(migrated_url, kind, MANY, others())
    assert many <= few + 40, (few, many)
    assert each_of_many <= each_of_few + 10, (each_of_few, each_of_many)


async def statements_sent(driver: DatabaseDriver) -> int:
    """By the session of the driver's only connection."""
    async with driver.database.engine.connect() as connection:
        [row] = await connection.execute(text("SHOW SESSION STATUS LIKE 'Questions'"))
        return int(row[1])


async def test_keys_whose_first_jobs_are_elsewhere_cost_no_statement_each(migrated_url: str, backend: str) -> None:
    """Another claim has locked the first job of each key. What comes after them is parked, and runs in its turn."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    driver, other = DatabaseDriver(migrated_url, pool_size=1), DatabaseDriver(migrated_url)
    sent = []
    for keys in (range(1), range(1, 51)):
        await driver.jobs.insert(serialize_many([Step(customer_id=key) for key in keys]))
        async with other.database.engine.connect() as claiming:
            await claiming.execute(text("SELECT id FROM queue_jobs FOR UPDATE"))
            await other.jobs.insert(serialize_many([Step(customer_id=key) for key in keys]))
            begun = await statements_sent(driver)
            assert await driver.jobs.claim(["default"], 100, 30) == []
            sent.append(await statements_sent(driver) - begun)
            await claiming.rollback()
        for _ in range(2):
            claims = await driver.jobs.claim(["default"], 100, 30)
            assert len(claims) == len(keys)
            await driver.jobs.settle(
                [Settlement.completed(each.fence).leaving(each.policies or 0, each.headers) for each in claims]
            )
    await driver.close()
    await other.close()
    assert sent[1] <= sent[0]
