"""What a call of this process frees is told at once: to workers, to the relay and to listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from outbox import Job, Outbox, cancel, disconnect, dispatch
from outbox.client_state import default_client
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.drivers.redis import RedisDriver
from outbox.events import BatchEnded, Event
from outbox.ids import JobId
from outbox.relay import relay as relay_module
from outbox.relay.thread import RelayThreads
from outbox.settlement import Settlement
from outbox.wakeups.base import Wake
from outbox.wakeups.local_hub import local_hub
from outbox.wakeups.polling import Polling
from outbox.web import dashboard
from tests.support.commands import run
from tests.support.dashboards import BASE, browser, mounted, signed_in


class Apply(Job):
    ordering_key = "aggregate"
    aggregate: int

    async def handle(self) -> None: ...


class Charge(Job):
    concurrency_key = "customer"
    concurrency_limit = 1
    customer: int

    async def handle(self) -> None: ...


async def post(path: str, **fields: str) -> None:
    async with browser(mounted(dashboard(auth=signed_in()))) as viewer:
        response = await viewer.post(BASE + path, data={"connection": "database"} | fields)
        assert response.status_code == 303


@pytest.fixture(autouse=True)
async def _database(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    yield
    await disconnect()


@pytest.mark.parametrize("how", ["public call", "command", "dashboard"])
async def test_an_idle_worker_is_told_of_a_job_whose_key_is_free(
    migrated_url: str, database: DatabaseDriver, how: str
) -> None:
    first, second = [await dispatch(Apply(aggregate=7)) for _ in range(2)]
    assert [claim.fence.job_id for claim in await database.jobs.claim(["default"], 10, 30)] == [first]
    wakeups = Polling()
    local_hub.listen(["default"], wakeups)
    if how == "public call":
        assert await cancel(first)
    elif how == "command":
        assert (await run(migrated_url, "cancel", str(first))).code == 0
    else:
        await post(f"/jobs/{first}/cancel")
    assert await wakeups.wait(0) is Wake.JOBS
    assert [claim.fence.job_id for claim in await database.jobs.claim(["default"], 10, 30)] == [second]


# --- jobs on their way to Redis


@pytest.fixture
async def relays(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RelayThreads]:
    """The relay of this process, beside which there is none."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    relays = default_client.part(RelayThreads)
    yield relays
    await relays.close()


@pytest.fixture
async def redis(redis_url: str, migrated_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url, failed_store=FailedJobArchive(migrated_url, of="redis"))
    yield driver
    await driver.close()


async def reaches(redis: RedisDriver, job_id: JobId) -> None:
    async with asyncio.timeout(30):
        while await redis.jobs.get(job_id) is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["command", "dashboard"])
async def test_a_job_is_relayed_at_once_whose_key_is_free(
    relays: RelayThreads, redis: RedisDriver, migrated_url: str, how: str
) -> None:
    first, second = [await dispatch(Charge(customer=7), connection="redis") for _ in range(2)]
    await reaches(redis, first)
    await asyncio.to_thread(relays.threads["redis"].wait, 30)
    assert await redis.jobs.get(second) is None
    if how == "command":
        assert (await run(migrated_url, "limits", "set", Charge.name, "2")).code == 0
    else:
        await post("/limits/set", name=Charge.name, value="2")
    await reaches(redis, second)


async def test_listeners_hear_of_an_end_that_the_relay_of_this_process_has_found(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again and again, and no other relay is there."""
    monkeypatch.setattr(relay_module, "FIRST_LOOK", 0.0)
    heard: list[Event] = []
    async with Outbox(database_url=migrated_url, redis_url=redis_url) as client:
        client.listen(heard.append, BatchEnded)
        batch_id = await client.dispatch_batch([Charge(customer=7)], connection="redis")
        while not (claims := await redis.jobs.claim(["default"], 1, 30)):
            await asyncio.sleep(0.01)
        end = Settlement.completed(claims[0].fence)
        await redis.jobs.settle([end.leaving(claims[0].policies or 0, claims[0].headers)])
        async with asyncio.timeout(30):
            while not heard:
                await asyncio.sleep(0.01)
        await client.close()
    assert heard == [BatchEnded(batch_id, "", "finished", 1, 0)]
