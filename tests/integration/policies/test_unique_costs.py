"""What unique jobs cost, by the server's own count of rows: the same, however many others wait or are parked."""

from __future__ import annotations

import os

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.policies.unique_tables import State
from outbox.drivers.database.tables import PARKED
from outbox.envelope import serialize, serialize_many
from outbox.settlement import Settlement
from tests.conformance.jobs import envelope
from tests.integration.policies.test_key_costs import rows_read
from tests.integration.policies.unique_job_classes import Latest, Sync
from tests.support.table_versions import execute

FEW, MANY = 300, int(os.environ.get("OUTBOX_TEST_JOBS_BEHIND_A_KEY", "6000"))


async def cost_beside(url: str, waiting: int) -> dict[str, int]:
    """Rows that are read to dispatch, claim and settle a few jobs while ``waiting`` unique jobs are parked."""
    driver = DatabaseDriver(url, pool_size=1)
    await driver.policies.insert_unique(serialize_many([Latest(customer_id=number) for number in range(waiting)]))
    execute(url, f"UPDATE queue_jobs SET available_at = '{PARKED}'")
    execute(url, f"UPDATE queue_unique_jobs SET state = {State.PARKED:d}")
    costs: dict[str, int] = {}
    begun = await rows_read(driver)

    async def spent(on: str) -> None:
        nonlocal begun
        now = await rows_read(driver)
        costs[on], begun = now - begun, now

    await driver.policies.insert_unique([serialize(Sync(customer_id=number)) for number in range(5)])
    await spent("dispatch")
    met = await driver.policies.insert_unique([serialize(Sync(customer_id=number)) for number in range(5)])
    assert len(met) == 5
    await spent("dispatch that meets")
    await driver.jobs.insert([envelope() for _ in range(5)])
    begun = await rows_read(driver)
    claims = await driver.jobs.claim(["default"], 20, 30)
    assert len(claims) == 10
    await spent("claim")
    ends = [Settlement.completed(each.fence).leaving(each.policies, each.headers) for each in claims if each.policies]
    await driver.jobs.settle([*ends, *(Settlement.completed(each.fence) for each in claims if not each.policies)])
    await spent("settle")
    assert (await driver.jobs.next_due(["default"])).due is None
    await driver.close()
    for table in ("queue_jobs", "queue_unique", "queue_unique_jobs", "queue_unique_running"):
        execute(url, f"DELETE FROM {table}")
    return costs


@pytest.mark.parametrize(
    "backend",
    [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)],
    indirect=True,
)
async def test_parked_unique_jobs_cost_the_others_nothing(migrated_url: str, backend: str) -> None:
    few, many = await cost_beside(migrated_url, FEW), await cost_beside(migrated_url, MANY)
    assert all(many[what] <= few[what] + 40 for what in few), (backend, few, many)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
