"""What every driver is tested with. A new driver is added to `driver_factory`, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
from redis import Redis as Client
from redis.asyncio import RedisCluster

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.drivers.redis import RedisDriver
from tests.servers import databases, summary
from tests.support.even_costs import EvenCosts
from tests.support.redis_clusters import ClusterServer, cluster, cluster_url

DriverFactory = Callable[[], Driver]

SQL = {"sqlite", "mysql", "mariadb"}


@pytest.fixture(autouse=True)
def even_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim is put off because statements take long on this machine."""
    monkeypatch.setattr("outbox.drivers.database.claim_scan.cursors.ScanCost", EvenCosts)


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.sqlite),
        pytest.param("mysql", marks=pytest.mark.mysql),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis with a database", marks=pytest.mark.redis),
        pytest.param("redis cluster", marks=(pytest.mark.redis, pytest.mark.xdist_group("redis cluster"))),
    ]
)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def driver_factory(backend: str, request: pytest.FixtureRequest) -> AsyncIterator[DriverFactory]:
    """Makes drivers on one empty store, as so many processes would have them, and closes them."""
    opened: list[Driver] = []
    open_one = opener(backend, request)

    def make() -> Driver:
        opened.append(open_one())
        return opened[-1]

    yield make
    leaked = [driver for driver in opened if await connections_left(driver)]
    assert not leaked, "a connection was not given back to its pool"


def opener(backend: str, request: pytest.FixtureRequest) -> DriverFactory:
    if backend in SQL:
        url = request.getfixturevalue("migrated_url")
        return lambda: DatabaseDriver(url)
    url = request.getfixturevalue("redis_cluster_url" if backend == "redis cluster" else "redis_url")
    if backend != "redis with a database":
        return lambda: RedisDriver(url)
    template, directory = request.getfixturevalue("migrated_sqlite"), request.getfixturevalue("tmp_path")
    database = databases.fresh_file(directory, template)
    return lambda: RedisDriver(url, failed_store=FailedJobArchive(database, of="redis"))


async def connections_left(driver: Driver) -> int:
    """Close the driver; how many of its connections were still in somebody's hands?"""
    if isinstance(driver, DatabaseDriver):
        left = int(driver.database.engine.pool.checkedout())  # type: ignore[attr-defined]
        await driver.close()
        return left
    assert isinstance(driver, RedisDriver)
    # Afterwards, because failed jobs may be on their way until then.
    await driver.close()
    client = driver.store.client
    if isinstance(client, RedisCluster):
        return sum(len(node._connections) - len(node._free) for node in client.get_nodes())
    return len(client.connection_pool._in_use_connections)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[ClusterServer]]:
    with summary.skipping(), cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def redis_cluster_url(redis_cluster: Sequence[ClusterServer]) -> Iterator[str]:
    yield cluster_url(redis_cluster)
    for node in redis_cluster:
        with Client.from_url(node.url) as client:
            client.flushall()


@pytest.fixture
def driver(driver_factory: DriverFactory) -> Driver:
    return driver_factory()


@pytest.fixture
def other(driver_factory: DriverFactory) -> Driver:
    """Another process's driver on the same store."""
    return driver_factory()
