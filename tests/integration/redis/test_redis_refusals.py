"""What a server refuses, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis as Client
from redis import exceptions

from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.connection.errors import Fault, classify, translate
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.connection.url import RedisUrl
from outbox.drivers.redis.operations import health
from outbox.drivers.redis.pubsub import PubSub
from outbox.drivers.redis.script import command
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError, RequestRefused, UnsupportedServer
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, envelope, envelopes
from tests.integration.redis.test_redis_restart import every_verb
from tests.servers import LocalServer, summary
from tests.support.redis_clusters import ClusterServer, documented_user


@pytest.fixture
def admin(local_redis: LocalServer) -> Iterator[Client]:
    with Client.from_url(local_redis.url) as client:
        yield client


@pytest.fixture
async def driver(local_redis: LocalServer) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(local_redis.url)
    yield driver
    await driver.close()


async def refusal_of(url: str, kind: type[OutboxError]) -> str:
    driver = RedisDriver(url)
    with pytest.raises(kind) as refused:
        await driver.jobs.insert([envelope()])
    await driver.close()
    return str(refused.value)


# --- no memory left


def fill(admin: Client) -> None:
    admin.config_set("maxmemory", admin.info("memory")["used_memory"])


async def test_the_dispatcher_is_told_that_the_memory_is_used_up_and_nothing_is_stored(
    driver: RedisDriver, admin: Client
) -> None:
    await driver.jobs.insert(envelopes(10))
    fill(admin)
    with pytest.raises(BackendUnavailable, match="has used up its maxmemory, so nothing was stored: let workers drain"):
        await driver.jobs.insert([*envelopes(10, queue="a"), *envelopes(10, queue="b")])
    assert [counts.queue for counts in await driver.queues.counts()] == ["default"]
    admin.config_set("maxmemory", 0)
    await driver.jobs.insert(envelopes(1))


async def test_a_full_server_is_drained_by_its_workers(driver: RedisDriver, admin: Client) -> None:
    await driver.jobs.insert(envelopes(10))
    fill(admin)
    claims = await driver.jobs.claim(["default"], 5, 30)
    assert len(claims) == 5
    fences = [claim.fence for claim in claims]
    assert (await driver.jobs.extend(fences, 30)).kept == set(fences)
    ends = [
        Settlement.completed(fences[0], (envelope(queue="next"),)),
        Settlement.failed(fences[1], FAILURE),
        Settlement.retried(fences[2], 0, FAILURE),
        Settlement.snoozed(fences[3], 0),
        Settlement.cancelled(fences[4]),
    ]
    assert len((await driver.jobs.settle(ends)).accepted) == 5
    assert await driver.jobs.cancel([job.id for job in await driver.jobs.list_jobs()]) != []
    assert await driver.failed.flush() == 1


# --- who is asking


async def test_a_wrong_password_is_a_wrong_configuration(local_redis: LocalServer, admin: Client) -> None:
    admin.config_set("requirepass", "right")
    where = f"127.0.0.1:{local_redis.port}/0"
    said = await refusal_of(f"redis://:wrong@{where}", ConfigurationError)
    assert "see the user and the password in REDIS_URL" in said
    assert "wrong@" not in said, "the password is in the message"
    assert "see the user and the password in REDIS_URL" in await refusal_of(f"redis://{where}", ConfigurationError)
    stranger = RedisDriver(f"redis://{where}")
    with pytest.raises(ConfigurationError):
        await stranger.check()
    await stranger.close()
    driver = RedisDriver(f"redis://:right@{where}")
    await driver.jobs.insert([envelope()])
    await driver.check()
    assert "right" not in driver.description
    await driver.close()


async def test_a_user_without_the_right_to_run_scripts_is_a_wrong_configuration(
    local_redis: LocalServer, admin: Client
) -> None:
    admin.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], categories=["+@read"])
    said = await refusal_of(f"redis://reader:any@127.0.0.1:{local_redis.port}/0", ConfigurationError)
    assert "no permissions" in said


async def test_the_rights_of_the_documentation_are_enough(local_redis: LocalServer, admin: Client) -> None:
    driver = RedisDriver(f"redis://{documented_user(admin)}@127.0.0.1:{local_redis.port}/0")
    await driver.check()
    await driver.health_issues()
    await every_verb(driver)
    await driver.now()
    assert await driver.queues.pause("default")
    assert await driver.queues.resume("default")
    assert await driver.jobs.find("00000000") == await driver.failed.find("00000000") == []
    with pytest.raises(RequestRefused, match="refuses this user"):
        await driver.store.do(command("FLUSHALL"))
    with pytest.raises(RequestRefused, match="refuses this user"):
        await driver.store.do(command("GET", "session:1"))
    await driver.close()


async def test_a_database_number_that_there_is_not_is_a_wrong_configuration(local_redis: LocalServer) -> None:
    assert "databases" in await refusal_of(f"redis://127.0.0.1:{local_redis.port}/999", ConfigurationError)


# --- a server that is the wrong one, or not ready


async def test_a_replica_is_unavailable_after_bounded_retries(driver: RedisDriver, admin: Client) -> None:
    admin.replicaof("127.0.0.1", "1")
    admin.config_set("replica-serve-stale-data", "yes")
    begun = time.monotonic()
    with pytest.raises(BackendUnavailable):
        await driver.jobs.insert([envelope()])
    assert time.monotonic() - begun < 30
    [concern] = [one for one in await driver.health_issues() if one.serious]
    assert "is a replica" in concern.message


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "allkeys-lfu"])
async def test_a_server_that_evicts_jobs_is_refused(driver: RedisDriver, admin: Client, policy: str) -> None:
    admin.config_set("maxmemory-policy", policy)
    await driver.check()
    assert any(policy in concern.message for concern in await driver.health_issues()), "without a limit it is a concern"
    admin.config_set("maxmemory", 100_000_000)
    with pytest.raises(ConfigurationError, match="set maxmemory-policy noeviction"):
        await driver.check()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
async def test_a_server_that_cannot_evict_jobs_is_taken(driver: RedisDriver, admin: Client, policy: str) -> None:
    """The keys of jobs never expire, and the volatile policies take nothing else."""
    admin.config_set("maxmemory-policy", policy)
    admin.config_set("maxmemory", 100_000_000)
    await driver.check()
    await driver.jobs.insert([envelope()])
    with Client.from_url(str(driver.store.address)) as client:
        assert {client.ttl(key) for key in client.scan_iter()} == {-1}


async def test_check_and_concerns_do_without_config(local_redis: LocalServer, admin: Client) -> None:
    """Managed servers forbid it."""
    admin.acl_setuser("tenant", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-config"])
    admin.config_set("appendonly", "no")
    driver = RedisDriver(f"redis://tenant:any@127.0.0.1:{local_redis.port}/0")
    await driver.check()
    assert any("appendonly is off" in concern.message for concern in await driver.health_issues())
    await driver.close()


async def test_a_durable_server_gives_no_cause_for_concern(driver: RedisDriver, admin: Client) -> None:
    assert await driver.health_issues() == []
    admin.config_set("appendfsync", "everysec")
    assert await driver.health_issues() == []
    admin.config_set("appendfsync", "no")
    [concern] = await driver.health_issues()
    assert "appendfsync" in concern.message


async def test_an_old_server_is_refused(driver: RedisDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    async def info(_: Store) -> list[dict[str, str]]:
        return [{"redis_version": "6.2.14"}]

    monkeypatch.setattr(Store, "info", info)
    with pytest.raises(UnsupportedServer, match="is Redis 6.2.14; outbox needs Redis 7"):
        await driver.check()


async def test_valkey_is_called_by_its_name(driver: RedisDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    async def info(_: Store) -> list[dict[str, str]]:
        return [{"redis_version": "7.2.4", "valkey_version": "8.0.1", "server_name": "valkey"}]

    monkeypatch.setattr(Store, "info", info)
    await driver.check()
    assert driver.description.endswith("(Valkey 8.0.1)")


async def test_the_scheme_has_to_be_that_of_the_server(local_redis: LocalServer, tmp_path: Path) -> None:
    where = f"127.0.0.1:{local_redis.port}"
    assert "REDIS_URL=redis://" in await refusal_of(f"redis+cluster://{where}", ConfigurationError)
    with summary.skipping(), ClusterServer(tmp_path / "node") as node:
        driver = RedisDriver(f"redis://127.0.0.1:{node.port}/0")
        with pytest.raises(ConfigurationError, match="REDIS_URL=redis\\+cluster://"):
            await driver.check()
        await driver.close()


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "mysql+asyncmy://root@localhost/shop",
        "redis://localhost:port/0",
        "redis://localhost:6379/abc",
        "rediss://localhost/0/more",
        "unix:///run/redis.sock?db=abc",
        "rediss://localhost/0?ssl_cert_reqs=perhaps",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost:26379/jobs/zero",
        "redis+sentinel://localhost:26379/jobs/0/more",
        "redis+sentinel://localhost:26379/jobs?sentinel_pasword=typo",
        "redis+cluster://",
        "redis+cluster://localhost:6379/1",
        "redis+cluster://localhost:6379?sentinel_password=x",
        "redis+cluster://a:b:c",
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write redis://"):
        RedisDriver(url)


def test_an_option_that_there_is_not_is_refused_before_anything_connects() -> None:
    """The package would refuse it at every connection, which looks like a server that is away."""
    for scheme in ("redis", "rediss"):
        with pytest.raises(ConfigurationError, match="the option 'bogus' is not known"):
            RedisDriver(f"{scheme}://localhost:6379/0?socket_timeout=3&bogus=1")
        with pytest.raises(ConfigurationError, match="the option 'bogus' is not known"):
            PubSub(f"{scheme}://localhost:6379/0?bogus=1")


def test_several_hosts_are_read() -> None:
    address = RedisUrl.parse(
        "redis+sentinel://worker:p%40ss@one,two:26380,[::1]:1/jobs/3?sentinel_password=s&sentinel_username=u"
    )
    assert address.hosts == (("one", 26379), ("two", 26380), ("::1", 1))
    assert (address.master, dict(address.options)) == ("jobs", {"username": "worker", "password": "p@ss", "db": 3})
    assert dict(address.sentinel_options) == {"password": "s", "username": "u"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost/0", "redis://:***@localhost/0"),
        ("rediss://worker:secret@localhost/0", "rediss://worker:***@localhost/0"),
        ("unix:///run/redis.sock?db=1&password=secret", "unix:///run/redis.sock?db=1&password=***"),
        (
            "redis+sentinel://worker:secret@one,two/jobs?sentinel_password=secret",
            "redis+sentinel://worker:***@one,two/jobs?sentinel_password=***",
        ),
    ],
)
def test_a_description_hides_passwords(url: str, shown: str) -> None:
    assert str(RedisUrl.parse(url)) == shown


# --- errors in general


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (exceptions.ConnectionError("Connection reset by peer"), Fault.UNREACHABLE),
        (exceptions.ConnectionError("max number of clients reached"), Fault.UNREACHABLE),
        (exceptions.TimeoutError("Timeout reading from socket"), Fault.UNREACHABLE),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), Fault.REFUSED),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), Fault.REFUSED),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), Fault.REFUSED),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), Fault.REFUSED),
        (exceptions.ClusterDownError("The cluster is down"), Fault.REFUSED),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), Fault.FULL),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Fault.FULL),
        (exceptions.AuthenticationError("invalid username-password pair"), Fault.OTHER),
        (exceptions.NoPermissionError("this user has no permissions"), Fault.OTHER),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), Fault.OTHER),
    ],
)
def test_errors_are_sorted_by_what_to_do_about_them(error: exceptions.RedisError, fault: Fault) -> None:
    assert classify(error) is fault
    translated = translate(error, "redis://localhost/0")
    if fault is Fault.OTHER:
        assert translated is None or isinstance(translated, ConfigurationError)
    else:
        assert isinstance(translated, BackendUnavailable)


def test_a_version_without_numbers_is_none_that_is_known() -> None:
    with pytest.raises(UnsupportedServer):
        health.check_server({}, "somewhere", one_slot=True)


# --- what was right once


@pytest.mark.parametrize(
    "change", [("-evalsha", "-eval"), (">other", "<secret"), ("off",)], ids=["right", "password", "off"]
)
async def test_a_user_who_is_refused_after_a_good_start_is_an_outage(redis_url: str, change: tuple[str, ...]) -> None:
    """As long as the user was refused from the start, it is a matter of configuration."""
    with Client.from_url(redis_url) as operator:
        operator.execute_command("ACL", "SETUSER", "shop", "reset", "on", ">secret", "~*", "&*", "+@all")
        url = redis_url.replace("redis://", "redis://shop:secret@")
        driver, fresh = RedisDriver(url), RedisDriver(url)
        try:
            await driver.jobs.insert([envelope()])
            [claim] = await driver.jobs.claim(["default"], 1, 30)
            operator.execute_command("ACL", "SETUSER", "shop", *change)
            operator.execute_command("CLIENT", "KILL", "USER", "shop")
            for _ in range(2):
                with pytest.raises(RequestRefused):
                    await driver.jobs.settle([Settlement.completed(claim.fence)])
            with pytest.raises(ConfigurationError):
                await fresh.jobs.insert([envelope()])
            operator.execute_command("ACL", "SETUSER", "shop", "reset", "on", ">secret", "~*", "&*", "+@all")
            assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1
        finally:
            operator.execute_command("ACL", "DELUSER", "shop")
        await driver.close()
        await fresh.close()
