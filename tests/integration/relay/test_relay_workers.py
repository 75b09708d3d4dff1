"""The relay seen from workers: delayed jobs, a Redis that cannot be used, and when there is nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import dispatch
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import NextDue
from outbox.envelope import Headers, serialize
from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.events import ConnectionDown, ConnectionUp, Event, Events
from outbox.job import Job
from outbox.options import JobOptions
from outbox.relay import relay as relay_module
from outbox.relay.route import to_relay_row
from outbox.relay.thread import RelayThreads
from outbox.runtime.relay_loop import RelayLoop
from outbox.settings import Settings
from tests.servers import LocalServer
from tests.support.embedded_worker import Arrival, working
from tests.support.orders import async_engine
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers

pytestmark = pytest.mark.redis


@pytest.fixture
def backend() -> str:
    """What a relay asks of a database is tested on all of them elsewhere."""
    return "sqlite"


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


async def put_for_redis(database: DatabaseDriver, *jobs: Job, **options: float) -> None:
    """As a process leaves them that ends with the commit."""
    serialized = [serialize(job, JobOptions.checked(**options)) for job in jobs]  # type: ignore[arg-type]
    await database.jobs.insert([to_relay_row(envelope, "redis") for envelope in serialized])


def unusable(redis_url: str, why: str) -> str:
    host = redis_url.removeprefix("redis://").partition("/")[0]
    return {"password": f"redis://:wrong@{host}/0", "database number": f"redis://{host}/99999"}[why]


either = pytest.mark.parametrize("why", ["password", "database number"])


@either
async def test_a_worker_of_the_database_goes_on_beside_a_redis_that_it_cannot_use(
    workers: Workers, database: DatabaseDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setenv("REDIS_URL", unusable(redis_url, why))
    await put_for_redis(database, Counted(number=1))
    worker = await workers.started("--sleep", "0.05", "--wake", "poll")
    [down] = await worker.event("connection_down", connection="relay to redis")
    assert "REDIS_URL" in down["error"]
    await database.jobs.insert([serialize(Counted(number=2))])
    [run] = await workers.oracle.wait("end")
    assert run.number == 2
    assert await worker.terminate() == 0


@either
async def test_a_relay_that_cannot_use_its_redis_does_not_start(
    workers: Workers, redis_url: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setenv("REDIS_URL", unusable(redis_url, why))
    worker = await workers.start("--relay")
    assert await worker.exit_code() == 2
    [line] = worker.other
    assert "REDIS_URL" in line
    assert worker.events == []


class Watched:
    """A relay in the event loop of the test, whose looks and moves are counted."""

    def __init__(self, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[Event] = []
        self.up = asyncio.Event()
        self.looks, self.moves = asyncio.Semaphore(0), asyncio.Semaphore(0)
        events = Events()
        events.listen(self.said.append)
        events.listen(lambda _: self.up.set(), ConnectionUp)
        settings = Settings(DATABASE_URL=database_url, REDIS_URL=redis_url)  # type: ignore[call-arg]
        self.loop = RelayLoop(settings, "redis", events, interval=0.01)
        next_due, move = self.loop.source.jobs.next_due, self.loop.relay.move

        async def counted_look(queues: Sequence[str]) -> NextDue:
            self.looks.release()
            return await next_due(queues)

        async def counted_move() -> int:
            self.moves.release()
            return await move()

        monkeypatch.setattr(self.loop.source.jobs, "next_due", counted_look)
        monkeypatch.setattr(self.loop.relay, "move", counted_move)

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.said]


async def times(counter: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        await counter.acquire()


@pytest.fixture
async def relay(migrated_url: str, local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    relay = Watched(migrated_url, local_redis.url, monkeypatch)
    yield relay
    await relay.loop.stop()


async def test_a_redis_that_can_be_used_again_is_given_its_jobs(
    database: DatabaseDriver, relay: Watched, local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said once, and no attempt at the row was counted."""
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 0.0)
    await put_for_redis(database, Counted(number=1))
    redis = RedisDriver(local_redis.url)
    async with asyncio.timeout(30), Redis.from_url(local_redis.url) as admin:
        await admin.config_set("requirepass", "secret")
        await relay.loop.start()
        await times(relay.moves, 4)
        assert (await database.jobs.list_jobs())[0].attempts <= 1
        await admin.config_set("requirepass", "")
        await relay.up.wait()
    assert [count.ready for count in await redis.queues.counts()] == [1]
    await redis.close()
    assert relay.kinds == [ConnectionDown, ConnectionUp]


async def test_a_redis_that_would_evict_jobs_is_given_none(
    database: DatabaseDriver, relay: Watched, local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evicted job looks like one that has ended: its row would be removed."""
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 0.0)
    await put_for_redis(database, Counted(number=1))
    async with asyncio.timeout(30), Redis.from_url(local_redis.url) as admin:
        await evicting(admin)
        await relay.loop.start()
        await times(relay.moves, 4)
        assert await admin.dbsize() == 0
        await admin.config_set("maxmemory-policy", "noeviction")
        await relay.up.wait()
        assert await admin.hlen("outbox:{default}:jobs") == 1
    assert relay.kinds == [ConnectionDown, ConnectionUp]


async def test_nor_is_one_that_would_since_an_outage(
    migrated_url: str, database: DatabaseDriver, local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 0.0)
    redis = RedisDriver(local_redis.url)
    relay = relay_module.Relay(database, redis, "redis")
    await put_for_redis(database, Counted(number=1))
    assert await relay.move() == 1
    await put_for_redis(database, Counted(number=2))
    local_redis.kill()
    with pytest.raises(BackendUnavailable):
        await relay.move()
    await asyncio.to_thread(local_redis.restart)
    async with Redis.from_url(local_redis.url) as admin:
        await evicting(admin)
        with pytest.raises(ConfigurationError, match="noeviction"):
            await relay.move()
        await admin.config_set("maxmemory", 0)
    assert await relay.move() == 1
    assert [count.ready for count in await redis.queues.counts()] == [2]
    await redis.close()


async def test_a_process_that_dispatches_gives_it_none_either(
    migrated_url: str,
    local_redis: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", local_redis.url)
    engine = async_engine(migrated_url)
    async with Redis.from_url(local_redis.url) as admin:
        await evicting(admin)
        async with AsyncSession(engine) as session, session.begin():
            await dispatch(Counted(number=1), session=session, connection="redis")
        # It ends without a try when it is told to stop before it has begun.
        await asyncio.to_thread(default_client.part(RelayThreads).threads["redis"].wait, 30)
        await asyncio.to_thread(default_client.part(RelayThreads).stop)
        assert await admin.dbsize() == 0
    await engine.dispose()
    assert "left to the workers to move on" in caplog.text
    assert "noeviction" in caplog.text


async def evicting(admin: Redis) -> None:
    await admin.config_set("maxmemory", 100_000_000)
    await admin.config_set("maxmemory-policy", "allkeys-lru")


async def test_a_redis_is_not_back_because_others_have_the_rows(
    database: DatabaseDriver, relay: Watched, local_redis: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "AGAIN_AFTER", 60.0)
    await put_for_redis(database, Counted(number=1))
    async with asyncio.timeout(30), Redis.from_url(local_redis.url) as admin:
        await admin.config_set("requirepass", "secret")
        await relay.loop.start()
        await times(relay.looks, 4)
        assert relay.kinds == [ConnectionDown]
        await admin.config_set("requirepass", "")
        await relay.up.wait()
    assert relay.kinds == [ConnectionDown, ConnectionUp]


async def test_a_queue_is_not_empty_while_jobs_are_on_their_way_to_it(
    workers: Workers, database: DatabaseDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    await put_for_redis(database, Counted(number=1))
    # A relay that died in the middle: nobody else can move the job before this ends.
    assert await database.jobs.claim([">redis"], 1, 4)
    worker = await workers.start("--connection", "redis", "--stop-when-empty", "--sleep", "0.05")
    assert await worker.exit_code() == 0
    assert [run.number for run in workers.oracle.runs("end")] == [1]


async def test_a_row_that_is_kept_in_case_redis_loses_its_job_keeps_no_worker(
    workers: Workers, database: DatabaseDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(relay_module, "FIRST_LOOK", 3600.0)
    await put_for_redis(database, Counted(number=1))
    await put_for_redis(database, Counted(number=2), queue="elsewhere")
    redis = RedisDriver(redis_url)
    assert await relay_module.Relay(database, redis, "redis").move() == 2
    await redis.close()
    worker = await workers.start("--connection", "redis", "--stop-when-empty", "--sleep", "0.05")
    assert await worker.exit_code() == 0
    assert [run.number for run in workers.oracle.runs("end")] == [1]
    assert "elsewhere" in [Headers.load(row.headers).relayed_to for row in await database.jobs.list_jobs(">redis")]


async def test_the_row_of_a_relayed_job_leaves_the_database_right_after_its_end(
    workers: Workers, database: DatabaseDriver, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next look of the relay, which is 7 s away, and long before the next look at the row."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(relay_module, "FIRST_LOOK", 3600.0)
    worker = await workers.started("--connection", "redis")
    await put_for_redis(database, Counted(number=1))
    redis = RedisDriver(redis_url)
    assert await relay_module.Relay(database, redis, "redis").move() == 1
    await redis.close()
    await workers.oracle.wait("end")
    async with asyncio.timeout(5):
        while await database.jobs.list_jobs():
            await asyncio.sleep(0.01)
    assert await worker.terminate() == 0


async def test_a_delayed_job_starts_when_it_is_due_in_a_worker_that_looks_once_a_minute(
    migrated_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    arrival = Arrival()
    engine = async_engine(migrated_url)
    async with working(migrated_url, redis_url=redis_url, connection="redis"):
        async with AsyncSession(engine) as session, session.begin():
            await dispatch(arrival.job, session=session, connection="redis", delay=0.5)
        assert await arrival() == "default"
    await engine.dispose()
    await asyncio.to_thread(default_client.part(RelayThreads).stop)
