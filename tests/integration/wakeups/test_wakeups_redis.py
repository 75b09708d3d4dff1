"""A Redis beside the database carries wake-ups, and nothing depends on it but latency."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import dispatch, sync
from outbox.client_state import configure
from outbox.errors import ConfigurationError
from outbox.events import WakeupsHeard, WakeupsUnheard
from outbox.open_drivers import disconnect
from outbox.wakeups.redis_channel import CHANNEL
from outbox.wakeups.redis_client import pubsub
from outbox.wakeups.redis_subscription import Subscription
from tests.servers import LocalServer
from tests.support.embedded_worker import OFTEN, Arrival, put, working
from tests.support.orders import async_engine, sync_engine
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import ROOT

pytestmark = [pytest.mark.redis, pytest.mark.mysql]


@pytest.fixture
def backend() -> str:
    """The database matters to none of this."""
    return "mysql"


@pytest.fixture(autouse=True)
def only_redis_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the dispatching process itself, which is the worker's in these tests."""
    monkeypatch.setattr("outbox.wakeups.announce.local_hub", _Silent())


class _Silent:
    def notify(self, queues: object) -> None: ...


@pytest.fixture
async def beside(migrated_url: str, redis_url: str) -> AsyncIterator[str]:
    configure(database_url=migrated_url, redis_url=redis_url)
    yield redis_url
    await disconnect()
    configure()


async def test_a_commit_is_told_over_redis(migrated_url: str, beside: str) -> None:
    engine = async_engine(migrated_url)
    async with working(migrated_url, redis_url=beside) as worker:
        assert worker.woken_by == "redis"
        first, second = Arrival(), Arrival()
        async with AsyncSession(engine) as session, session.begin():
            await dispatch(first.job, session=session)
        await first()
        await dispatch(second.job)
        await second()
    await engine.dispose()


class _Heard(asyncio.Queue[Any]):
    """Bells."""

    def notify(self, queues: object) -> None:
        self.put_nowait(queues)

    def notify_all(self) -> None: ...


SCRIPT = """
from outbox.sync import dispatch
from tests.support.recorded_jobs import Counted

dispatch(Counted(number=7))
"""


async def test_a_script_that_ends_right_after_its_commit_is_heard(migrated_url: str, beside: str) -> None:
    heard = _Heard()
    subscription = Subscription(pubsub(beside), heard, lambda error: None)
    await subscription.start()
    # By name: at the end of an interpreter, executors that resolve one are shut down first.
    environment = {**os.environ, "DATABASE_URL": migrated_url, "REDIS_URL": beside.replace("127.0.0.1", "localhost")}
    command = [sys.executable, "-c", SCRIPT]
    await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environment, check=True)
    async with asyncio.timeout(60):
        assert await heard.get() == {"default"}
    await subscription.stop()


async def test_a_redis_that_dies_costs_latency_and_is_heard_again(migrated_url: str, local_redis: LocalServer) -> None:
    async with working(migrated_url, wake="redis", redis_url=local_redis.url, sleep=OFTEN) as worker:
        local_redis.kill()
        lost = await worker.event(WakeupsUnheard)
        assert (lost.connection, lost.source) == ("database", "redis")
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await arrival()
        await asyncio.to_thread(local_redis.restart)
        await worker.event(WakeupsHeard)


async def test_after_an_outage_messages_wake_again(migrated_url: str, local_redis: LocalServer) -> None:
    configure(database_url=migrated_url, redis_url=local_redis.url)
    async with working(migrated_url, wake="redis", redis_url=local_redis.url) as worker:
        local_redis.kill()
        await worker.event(WakeupsUnheard)
        await asyncio.to_thread(local_redis.restart)
        await worker.event(WakeupsHeard)
        await worker.idle()
        arrival = Arrival()
        await dispatch(arrival.job)
        await arrival()
    await disconnect()
    configure()


@pytest.mark.parametrize("state", ["killed", "frozen"])
async def test_a_redis_that_is_down_neither_delays_nor_fails_a_dispatch(
    migrated_url: str, local_redis: LocalServer, state: str
) -> None:
    configure(database_url=migrated_url, redis_url=local_redis.url)
    engine = sync_engine(migrated_url)
    await dispatch(Arrival().job)  # so that there is a connection to be lost
    pid = local_redis.pid
    assert pid is not None
    if state == "killed":
        local_redis.kill()
    else:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(_dispatch_often, engine)
    finally:
        if state == "frozen":
            os.kill(pid, signal.SIGCONT)
        engine.dispose()
        await disconnect()
        configure()


def _dispatch_often(engine: Engine) -> None:
    took = []
    for number in range(100):
        began = time.monotonic()
        with Session(engine) as session, session.begin():
            sync.dispatch(Counted(number=number), session=session)
        took.append(time.monotonic() - began)
    assert max(took) < 10, "nobody waited for Redis, whose time-out is ten seconds"
    assert median(took) < 0.5, "nor for anything else"


async def test_auto_prefers_a_redis_that_answers_and_does_without_one_that_does_not(
    migrated_url: str, local_redis: LocalServer
) -> None:
    async with working(migrated_url, redis_url=local_redis.url) as worker:
        assert worker.woken_by == "redis"
    local_redis.kill()
    async with working(migrated_url, redis_url=local_redis.url) as worker:
        assert worker.woken_by == "binlog"


async def test_asked_for_redis_it_waits_for_one_that_does_not_answer_yet(
    migrated_url: str, local_redis: LocalServer
) -> None:
    local_redis.kill()
    async with working(migrated_url, wake="redis", redis_url=local_redis.url, sleep=OFTEN) as worker:
        assert worker.woken_by.startswith("redis, which does not answer yet (")
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await arrival()
        await asyncio.to_thread(local_redis.restart)
        await worker.event(WakeupsHeard)


async def test_asked_for_redis_without_its_address_it_does_not_start(migrated_url: str) -> None:
    with pytest.raises(ConfigurationError, match="--wake redis needs a server: set REDIS_URL"):
        async with working(migrated_url, wake="redis"):
            pass


async def test_the_redis_connection_hears_its_own_messages(migrated_url: str, redis_url: str) -> None:
    configure(database_url=migrated_url, redis_url=redis_url)
    async with working(migrated_url, redis_url=redis_url, connection="redis") as worker:
        assert worker.woken_by == "redis"
        arrival = Arrival()
        await dispatch(arrival.job, connection="redis")
        await arrival()
    await disconnect()
    configure()


def test_what_is_said_is_what_the_scripts_of_the_driver_say() -> None:
    library = ROOT / "outbox/drivers/redis/scripts/common/base.lua"
    assert f"'PUBLISH', '{CHANNEL}'" in library.read_text(encoding="utf-8")
