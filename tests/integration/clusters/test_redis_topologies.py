"""Every kind of REDIS_URL, against the servers that it is for."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import ipaddress
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis import Redis as Client
from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.connection import Connection

from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.jobs.cross_slot import CrossSlotJobs
from outbox.drivers.values import BlockingClaimRequest, WorkerStatus
from outbox.errors import BackendUnavailable
from outbox.ids import JobId
from outbox.settlement import InsertJobs, Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes
from tests.crash.harness import RedisHarness
from tests.integration.redis.test_redis_restart import every_verb
from tests.servers import LocalServer, Redis, summary
from tests.servers.process import free_port
from tests.support.recorded_jobs import Counted
from tests.support.redis_clusters import (
    ClusterServer,
    SentinelServer,
    cluster,
    cluster_url,
    documented_user,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("lasting_claims")

WORKER = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)


async def a_job_runs(url: str) -> None:
    """And is given to a worker that waits."""
    driver, given = RedisDriver(url), asyncio.Event()
    await driver.check()
    await driver.blocking_claims.next_due(["default"], BlockingClaimRequest(30, given.set))
    await driver.jobs.insert([envelope()])
    async with asyncio.timeout(30):
        await given.wait()
    claim = await claim_one(driver)
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1
    assert await driver.queues.counts() == []
    await driver.close()


async def a_worker_runs_a_job(url: str, directory: Path) -> None:
    """A process, with everything else in it that is given the URL."""
    harness = RedisHarness(url, directory)
    worker = await harness.workers.started("--connection", "redis")
    await harness.dispatch(Counted(number=1))
    await harness.all_done()
    assert await worker.terminate() == 0
    await harness.verify()
    await harness.close()


# --- one server


async def test_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    with summary.skipping(), Redis(tmp_path / "server", options=("--unixsocket", str(socket))):
        await a_job_runs(f"unix://{socket}?db=1")
        await a_worker_runs_a_job(f"unix://{socket}?db=1", tmp_path)


async def test_tls(tmp_path: Path) -> None:
    certificate, private_key = self_signed(tmp_path)
    port = free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(private_key),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with summary.skipping(), Redis(tmp_path / "server", options=words):
        await a_job_runs(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
        stranger = RedisDriver(f"rediss://127.0.0.1:{port}/0")
        with pytest.raises(BackendUnavailable, match="certificate"):
            await stranger.check()
        await stranger.close()


def self_signed(directory: Path) -> tuple[Path, Path]:
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, private_key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(here, critical=False).sign(private_key, hashes.SHA256())
    files = directory / "server.crt", directory / "server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


# --- Sentinel


async def test_after_a_failover_the_driver_goes_on_with_the_new_master(tmp_path: Path) -> None:
    with summary.skipping(), Redis(tmp_path / "master") as master, Redis(tmp_path / "replica") as replica:
        with Client.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(master.port))
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step")
        with SentinelServer(tmp_path / "sentinel", master.port) as sentinel, Client.from_url(sentinel.url) as watching:
            wait_for(lambda: len(watching.sentinel_slaves("jobs")) == 1, "the sentinel knows the replica")
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/jobs/0?sentinel_password=of%20the%20sentinel"
            await jobs_outlive(url, master, replica, watching)


async def test_a_sentinel_that_is_down_is_asked_once_and_then_the_next(tmp_path: Path) -> None:
    """Trying it again, with ever longer pauses, would hold up each worker that connects while the next one knows."""
    asked = 0

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    with summary.skipping(), Redis(tmp_path / "master") as master:
        with SentinelServer(tmp_path / "sentinel", master.port) as sentinel:
            async with await asyncio.start_server(hang_up, "127.0.0.1") as down:
                port = down.sockets[0].getsockname()[1]
                hosts = f"127.0.0.1:{port},127.0.0.1:{sentinel.port}"
                url = f"redis+sentinel://{hosts}/jobs/0?sentinel_password=of%20the%20sentinel"
                driver = RedisDriver(url)
                await driver.check()
                await driver.close()
                assert asked == 1
                await a_worker_runs_a_job(url, tmp_path)


async def jobs_outlive(url: str, master: LocalServer, replica: LocalServer, sentinel: Client) -> None:
    driver = RedisDriver(url)
    await driver.check()
    await driver.jobs.insert(envelopes(10))
    claim = await claim_one(driver)
    given = asyncio.Event()
    await driver.blocking_claims.next_due(["default"], BlockingClaimRequest(30, given.set))
    with Client.from_url(replica.url) as client:
        wait_for(lambda: client.hlen("outbox:{default}:held") == 1, "the replica has the claim")
    # However late this process comes to ask, nobody has taken over yet.
    sentinel.sentinel_set("jobs", "down-after-milliseconds", 600_000)
    master.kill()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.insert([envelope()])
    sentinel.sentinel_set("jobs", "down-after-milliseconds", 1_000)
    async with asyncio.timeout(60):
        while True:
            try:
                settled = await driver.jobs.settle([Settlement.completed(claim.fence)])
                break
            except BackendUnavailable:
                await asyncio.sleep(0.1)
    assert len(settled.accepted) == 1
    assert len(await driver.jobs.claim(["default"], 20, 30)) == 9
    assert not given.is_set()
    await driver.blocking_claims.next_due(["default"], BlockingClaimRequest(30, given.set))
    await driver.jobs.insert([envelope()])
    async with asyncio.timeout(30):
        await given.wait()
    assert len(await driver.jobs.claim(["default"], 20, 30)) == 1
    with Client.from_url(replica.url) as client:
        assert client.hlen("outbox:{default}:held") == 10
    await driver.close()


# --- Cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[ClusterServer]]:
    with summary.skipping(), cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def driver(nodes: Sequence[ClusterServer]) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(cluster_url(nodes))
    yield driver
    await driver.close()
    for node in nodes:
        with Client.from_url(node.url) as client:
            client.flushall()


@pytest.fixture
async def other(nodes: Sequence[ClusterServer]) -> AsyncIterator[RedisDriver]:
    other = RedisDriver(cluster_url(nodes))
    yield other
    await other.close()


QUEUES = [f"queue{number}" for number in range(12)]


async def test_queues_are_spread_over_the_nodes(driver: RedisDriver, nodes: Sequence[ClusterServer]) -> None:
    await driver.check()
    await driver.jobs.insert([envelope(number, queue=queue) for queue in QUEUES for number in range(5)])
    for node in nodes:
        with Client.from_url(node.url) as client:
            assert client.dbsize() > 1
    assert len(await driver.queues.counts()) == 12
    claims = await driver.jobs.claim(QUEUES, 100, 30)
    assert [claim.queue for claim in claims] == [queue for queue in QUEUES for _ in range(5)]
    fences = [claim.fence for claim in claims]
    assert (await driver.jobs.extend(fences, 30)).kept == set(fences)
    assert len((await driver.jobs.settle([Settlement.completed(fence) for fence in fences])).accepted) == 60
    assert await driver.queues.counts() == []


async def follow_ups_of(driver: RedisDriver) -> tuple[Settlement, list[JobId]]:
    """The end of a job that is followed by one in each of twelve queues, and by one in its own."""
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    follow_ups = [envelope(number, queue=queue, delay=60) for number, queue in enumerate(["default", *QUEUES])]
    return Settlement.completed(claim.fence, (InsertJobs(tuple(follow_ups)),)), [job.id for job in follow_ups]


async def test_a_worker_of_a_cluster(nodes: Sequence[ClusterServer], tmp_path: Path) -> None:
    await a_worker_runs_a_job(cluster_url(nodes), tmp_path)


async def test_the_rights_of_the_documentation_are_enough(nodes: Sequence[ClusterServer], driver: RedisDriver) -> None:
    for node in nodes:
        with Client.from_url(node.url) as admin:
            user = documented_user(admin)
    limited = RedisDriver(cluster_url(nodes).replace("://", f"://{user}@"))
    await limited.check()
    await limited.health_issues()
    await every_verb(limited)
    settlement, ids = await follow_ups_of(limited)
    await limited.jobs.settle([settlement])
    assert sorted(job.id for job in await limited.jobs.list_jobs()) == ids
    relayed = envelopes(2, queue="relayed")
    assert await limited.relay_target.insert_once(relayed) == frozenset()
    await limited.relay_target.forget_accepted({each.id: each.queue for each in relayed})
    await limited.close()


async def test_follow_ups_reach_other_slots(driver: RedisDriver, nodes: Sequence[ClusterServer]) -> None:
    settlement, ids = await follow_ups_of(driver)
    await driver.jobs.settle([settlement])
    jobs = await driver.jobs.list_jobs()
    assert sorted(job.id for job in jobs) == ids
    assert {30 < (job.available_at - job.created_at).total_seconds() < 90 for job in jobs} == {True}
    assert await driver.store.client.hlen("outbox:{default}:parked") == 0


async def test_follow_ups_that_a_process_left_on_their_way_are_moved_on_by_another(
    driver: RedisDriver, other: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settlement, ids = await follow_ups_of(driver)

    async def end(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as broken, pytest.raises(asyncio.CancelledError):
        broken.setattr(CrossSlotJobs, "deliver", end)
        await driver.jobs.settle([settlement])
    assert [job.id for job in await other.jobs.list_jobs()] == ids[:1], "the one in its own slot is there at once"
    await other.workers.heartbeat(WORKER)
    assert len(await other.jobs.list_jobs()) == 1, "its process may be about to move them itself"
    await other.workers.heartbeat(WORKER)
    assert sorted(job.id for job in await other.jobs.list_jobs()) == ids
    await other.workers.heartbeat(WORKER)
    await driver.workers.heartbeat(WORKER)
    assert len(await other.jobs.list_jobs()) == 13


async def test_the_follow_ups_of_a_zombie_are_not_parked(driver: RedisDriver, other: RedisDriver) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    await claim_one(other)
    settled = await driver.jobs.settle([Settlement.completed(lost.fence, (InsertJobs((envelope(queue="queue1"),)),))])
    assert len(settled.stale) == 1
    for _ in range(3):
        await other.workers.heartbeat(WORKER)
    assert len(await driver.jobs.list_jobs()) == 1


async def test_a_node_that_is_down_is_unavailable_and_then_goes_on(
    driver: RedisDriver, nodes: Sequence[ClusterServer]
) -> None:
    await driver.jobs.insert([envelope(queue=queue) for queue in QUEUES])
    nodes[2].kill()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.claim(QUEUES, 12, 30)
    await asyncio.to_thread(nodes[2].restart)
    async with asyncio.timeout(60):
        while True:
            try:
                assert sum(counts.ready + counts.reserved for counts in await driver.queues.counts()) == 12
                break
            except BackendUnavailable:
                await asyncio.sleep(0.1)


async def test_connections_that_are_closed_while_they_are_opened_are_opened_again(
    driver: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a command fails, redis-py closes the connections to its node, also those that others are opening."""
    await driver.jobs.insert([envelope(queue=queue) for queue in QUEUES])
    await driver.queues.counts()
    client = driver.store.client
    for node in client.get_nodes():
        await node.disconnect_free_connections()
    send = Connection._send_packed_command
    closed = []

    async def close_the_first(connection: Connection, command: Iterable[bytes]) -> None:
        if not closed:
            closed.append(connection)
            await connection.disconnect(nowait=True)
        await send(connection, command)

    monkeypatch.setattr(Connection, "_send_packed_command", close_the_first)
    assert sum(counts.ready for counts in await driver.queues.counts()) == 12
    assert len(closed) == 1


def connections_to(nodes: Sequence[ClusterServer]) -> set[tuple[int, str]]:
    """Those of drivers: they gave no name to the server, and run scripts. Numbers are not given twice."""
    found = set()
    for node in nodes:
        with Client.from_url(node.url, client_name="test") as client:
            rows = client.client_list(_type="normal")
            found |= {(node.port, str(row["id"])) for row in rows if row["name"] != "test"}
    return found


async def test_nothing_is_left_of_a_driver_that_is_closed_after_a_command_has_failed(
    nodes: Sequence[ClusterServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connections_to(nodes)
    driver = RedisDriver(cluster_url(nodes))
    await driver.jobs.insert([envelope(queue=queue) for queue in QUEUES])
    assert len(connections_to(nodes) - before) >= 3

    send = Connection.send_packed_command

    async def fail(connection: Connection, command: Iterable[bytes], *options: Any, **named: Any) -> None:
        if any(b"EVALSHA" in part for part in command):
            await connection.disconnect(nowait=True)
            raise exceptions.ConnectionError("broken")
        await send(connection, command, *options, **named)

    with monkeypatch.context() as broken, pytest.raises(BackendUnavailable):
        broken.setattr(Connection, "send_packed_command", fail)
        await driver.queues.counts()
    await driver.close()
    wait_for(lambda: connections_to(nodes) <= before, "all connections are closed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del driver
        gc.collect()


async def test_commands_under_way_leave_nothing_in_a_client_that_was_given_up(
    nodes: Sequence[ClusterServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would look for the nodes anew, and connect to them."""
    before = connections_to(nodes)
    driver = RedisDriver(cluster_url(nodes))
    await driver.queues.counts()
    send, sending, continue_from = Connection.send_packed_command, asyncio.Event(), asyncio.Event()

    async def late(connection: Connection, command: Iterable[bytes], *options: Any, **named: Any) -> None:
        if connection.is_connected and not continue_from.is_set():
            sending.set()
            await continue_from.wait()
        await send(connection, command, *options, **named)

    monkeypatch.setattr(Connection, "send_packed_command", late)
    client = driver.store.client
    await RedisCluster.aclose(client)  # it looks for the nodes anew with the next command
    under_way = asyncio.create_task(client.execute_command("EXISTS", "outbox:{a}:paused"))
    await sending.wait()
    await driver.store.start_over(exceptions.RedisClusterException("no node answers"))
    continue_from.set()
    await asyncio.wait([under_way])
    assert driver.store.client is not client
    await driver.close()
    wait_for(lambda: connections_to(nodes) <= before, "all connections are closed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del driver, client, under_way
        gc.collect()
