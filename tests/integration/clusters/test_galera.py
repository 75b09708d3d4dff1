"""Workers on several nodes of a Galera cluster: rows are locked on one node only, and nodes agree at COMMIT."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pymysql
import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.errors import BackendUnavailable
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelopes
from tests.crash.harness import DatabaseHarness
from tests.crash.verdict import verify
from tests.servers import galera
from tests.servers.galera import GaleraNode
from tests.support import database_clusters
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import until

LEASE = 4.0
FLAGS = ("--lease", str(LEASE), "--sleep", "0.1", "--concurrency", "8")

MISSING = galera.missing()

pytestmark = [
    pytest.mark.mariadb,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.xdist_group("galera"),
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, prepared_mariadb: Path) -> Iterator[Sequence[GaleraNode]]:
    directory = tmp_path_factory.mktemp("galera")
    with galera.cluster(directory, 3, template=prepared_mariadb) as nodes:
        database_clusters.make_tables(nodes)
        yield nodes
    shutil.rmtree(directory)


@pytest.fixture
async def drivers(nodes: Sequence[GaleraNode]) -> AsyncIterator[list[DatabaseDriver]]:
    """One on each node."""
    drivers = [DatabaseDriver(database_clusters.url(node)) for node in nodes]
    yield drivers
    for driver in drivers:
        await driver.close()
    database_clusters.empty(nodes[0])


async def test_of_two_nodes_that_take_the_same_jobs_one_is_refused(drivers: list[DatabaseDriver]) -> None:
    one, other, _ = drivers
    await one.jobs.insert(envelopes(20))
    await database_clusters.has(other, 20)
    taken, refusal = await database_clusters.take_at_once(one, other, 10)
    assert "1213" in str(refusal)
    assert len(taken) == 10
    claims = await other.jobs.claim(["default"], 20, 60)
    assert {claim.attempt for claim in claims} == {1}
    assert {claim.fence.job_id for claim in claims} & taken == set()
    assert len(claims) == 10, "its pool is in order, and the other half was free"


async def test_claimers_on_three_nodes_take_each_job_once(drivers: list[DatabaseDriver]) -> None:
    await drivers[0].jobs.insert(envelopes(1_500))
    taken = await database_clusters.drain([driver for driver in drivers for _ in range(2)], 1_500, 25)
    assert len(taken) == 1_500
    assert set(taken.values()) == {1}
    await database_clusters.has(drivers[1], 0)


async def test_a_job_claimed_on_one_node_can_be_settled_on_another(drivers: list[DatabaseDriver]) -> None:
    one, other, _ = drivers
    await one.jobs.insert(envelopes(5))
    claims = await one.jobs.claim(["default"], 5, 60)
    await database_clusters.has(other, 5)
    settled = await other.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert len(settled.accepted) == 5


async def test_a_node_that_is_killed_takes_no_job_with_it(nodes: Sequence[GaleraNode], tmp_path: Path) -> None:
    """A worker on each of two nodes, an application on the third, and the first node is killed. The cluster stands
    still until it has noticed; then the other worker does everything, and what the first one ran runs once its leases
    have ended."""
    lost, kept, application = (DatabaseHarness(database_clusters.url(node), tmp_path) for node in nodes)
    workers = [await harness.workers.started(*FLAGS) for harness in (lost, kept)]
    dispatching = asyncio.create_task(
        application.dispatch(*(Counted(number=number, seconds=0.2) for number in range(150)), pause=0.02)
    )
    await application.oracle.wait("begin", 40)
    await until(lambda: {run.pid for run in application.oracle.runs("begin")} == {worker.pid for worker in workers})
    nodes[0].kill()
    await dispatching
    await kept.all_done()
    assert await workers[1].terminate() == 0
    await workers[0].event("connection_down")
    assert not any(worker.of("settlement_refused") for worker in workers)
    await verify(kept.driver, kept.oracle, application.ledger, lease=LEASE)
    for harness in (lost, kept, application):
        await harness.close()


async def test_a_node_without_a_majority_is_unavailable_and_then_goes_on(nodes: Sequence[GaleraNode]) -> None:
    """The last test: one node is dead already, and the second follows."""
    driver = DatabaseDriver(database_clusters.url(nodes[2]))
    await driver.jobs.insert(envelopes(3))
    claim = await claim_one(driver)
    operator = pymysql.connect(host="127.0.0.1", port=nodes[2].port, user="root")
    nodes[0].kill()
    nodes[1].kill()
    for call in (
        lambda: driver.jobs.claim(["default"], 1, 60),
        lambda: driver.jobs.settle([Settlement.completed(claim.fence)]),
        lambda: driver.jobs.extend([claim.fence], 60),
        lambda: driver.jobs.next_due(["default"]),
        lambda: driver.jobs.insert(envelopes(1)),
    ):
        with pytest.raises(BackendUnavailable, match="1047"):
            await call()
    with operator, operator.cursor() as cursor:
        cursor.execute("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
    async with asyncio.timeout(60):
        while True:
            try:
                settled = await driver.jobs.settle([Settlement.completed(claim.fence)])
                break
            except BackendUnavailable:
                await asyncio.sleep(0.1)
    assert len(settled.accepted) == 1
    assert len(await driver.jobs.claim(["default"], 5, 60)) == 2
    await driver.close()
