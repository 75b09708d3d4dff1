"""MySQL group replication: a primary that is killed under load, and several primaries that take the same jobs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.errors import BackendUnavailable
from tests.conformance.jobs import envelopes
from tests.crash.harness import DatabaseHarness
from tests.crash.verdict import verify
from tests.servers import group_replication
from tests.servers.group_replication import Member
from tests.support import database_clusters
from tests.support.port_forwarder import forwarding
from tests.support.recorded_jobs import Counted

LEASE = 4.0
FLAGS = ("--lease", str(LEASE), "--sleep", "0.1", "--concurrency", "8")
MISSING = group_replication.missing()

pytestmark = [
    pytest.mark.mysql,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.xdist_group("group replication"),
]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, prepared_mysql: Path) -> Iterator[Sequence[Member]]:
    """Primaries, all of them."""
    directory = tmp_path_factory.mktemp("group")
    with group_replication.group(directory, 3, many=True, template=prepared_mysql) as members:
        database_clusters.make_tables(members)
        yield members
    shutil.rmtree(directory)


async def test_of_two_primaries_that_take_the_same_jobs_one_is_refused(members: Sequence[Member]) -> None:
    one, other = (DatabaseDriver(database_clusters.url(member)) for member in members[:2])
    await one.jobs.insert(envelopes(20))
    await database_clusters.has(other, 20)
    taken, refusal = await database_clusters.take_at_once(one, other, 10)
    assert "1180" in str(refusal) or "3101" in str(refusal)
    claims = await other.jobs.claim(["default"], 20, 60)
    assert {claim.attempt for claim in claims} == {1}
    assert {claim.fence.job_id for claim in claims} & taken == set()
    await one.close()
    await other.close()
    database_clusters.empty(members[0])


async def test_claimers_on_three_primaries_take_each_job_once(members: Sequence[Member]) -> None:
    drivers = [DatabaseDriver(database_clusters.url(member)) for member in members for _ in range(2)]
    await drivers[0].jobs.insert(envelopes(600))
    taken = await database_clusters.drain(drivers, 600, 25)
    assert len(taken) == 600
    assert set(taken.values()) == {1}
    await database_clusters.has(drivers[-1], 0)
    for driver in drivers:
        await driver.close()


async def test_a_primary_that_is_killed_takes_no_committed_job_with_it(
    members: Sequence[Member], tmp_path: Path
) -> None:
    """The last test: everything goes through one address, which leads to the primary, and to the next one when it is
    known. Nothing that the application was told is lost, and no job runs beside itself."""
    first = members[0]
    await asyncio.to_thread(first.rule_alone)
    async with forwarding(first.port) as address:
        harness = DatabaseHarness(address.url(database_clusters.url(first)), tmp_path)
        workers = [await harness.workers.started(*FLAGS) for _ in range(2)]
        dispatching = asyncio.create_task(
            harness.dispatch(*(Counted(number=number, seconds=0.2) for number in range(150)), pause=0.02)
        )
        await harness.oracle.wait("begin", 40)
        await asyncio.to_thread(first.kill)
        second = await asyncio.to_thread(group_replication.wait_for_primary, members[1:])
        address.port = second.port
        await dispatching
        await harness.all_done()
        for worker in workers:
            assert await worker.terminate() == 0
            assert not worker.of("settlement_refused")
        await verify(harness.driver, harness.oracle, harness.ledger, lease=LEASE)
        await harness.close()
    follower = next(member for member in members[1:] if member is not second)
    driver = DatabaseDriver(database_clusters.url(follower))
    with pytest.raises(BackendUnavailable, match="read-only"):
        await driver.jobs.claim(["default"], 1, 30)
    await driver.close()
