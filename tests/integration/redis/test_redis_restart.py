"""Redis killed and started again: with `appendonly yes` nothing is lost, and no worker has to be started anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis as Client

from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import JobState, WorkerStatus
from outbox.errors import BackendUnavailable
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.servers import LocalServer, Redis, summary


@pytest.fixture
async def driver(local_redis: LocalServer) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(local_redis.url)
    yield driver
    await driver.close()


async def killed_and_restarted(server: LocalServer) -> None:
    server.kill()
    await asyncio.to_thread(server.restart)


async def test_jobs_in_every_state_are_there_after_a_kill(driver: RedisDriver, local_redis: LocalServer) -> None:
    await driver.jobs.insert([*envelopes(100), envelope(queue="later", delay=3600)])
    claims = await driver.jobs.claim(["default"], 10, 3600)
    ends = [
        Settlement.completed(claims[0].fence),
        Settlement.failed(claims[1].fence, FAILURE),
        Settlement.retried(claims[2].fence, 3600, FAILURE),
    ]
    await driver.jobs.settle(ends)
    before = {job.id: job for job in await driver.jobs.list_jobs(limit=200)}
    failed = await driver.failed.page()
    await killed_and_restarted(local_redis)
    after = {job.id: job for job in await driver.jobs.list_jobs(limit=200)}
    assert after == before
    assert len(after) == 99
    assert await driver.failed.page() == failed
    states = [job.state for job in after.values()]
    assert [states.count(state) for state in (JobState.RESERVED, JobState.DELAYED, JobState.RETRYING)] == [7, 1, 1]


@pytest.mark.parametrize("fsync", ["no", "everysec", "always"])
async def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path, fsync: str) -> None:
    """Not even with `appendfsync no`: what was written is the kernel's to keep, and only a power failure loses that."""
    with summary.skipping(), Redis(tmp_path / "redis", options=("--appendfsync", fsync)) as server:
        assert await left_after_a_kill(server) == 500


async def test_without_the_append_only_file_a_killed_process_loses_what_the_concern_says(tmp_path: Path) -> None:
    with summary.skipping(), Redis(tmp_path / "redis", options=("--appendonly", "no")) as server:
        assert await left_after_a_kill(server) == 0


async def left_after_a_kill(server: LocalServer) -> int:
    driver = RedisDriver(server.url)
    await driver.jobs.insert(envelopes(250))
    for job in envelopes(250):
        await driver.jobs.insert([job])
    await killed_and_restarted(server)
    left = len(await driver.jobs.list_jobs(limit=1_000))
    await driver.jobs.insert([envelope()])
    await claim_one(driver)
    await driver.close()
    return left


async def test_a_claim_from_before_the_kill_is_still_held_and_settled(
    driver: RedisDriver, local_redis: LocalServer
) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    await killed_and_restarted(local_redis)
    assert await driver.jobs.claim(["default"], 1, 30) == []
    assert (await driver.jobs.extend([claim.fence], 30)).kept == {claim.fence}
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


async def test_every_script_is_sent_again_to_a_server_that_does_not_know_it(
    driver: RedisDriver, local_redis: LocalServer
) -> None:
    for _ in range(2):
        await every_verb(driver)
        await killed_and_restarted(local_redis)
    with Client.from_url(local_redis.url) as client:
        client.script_flush()
    await every_verb(driver)


async def every_verb(driver: RedisDriver) -> None:
    worker = WorkerStatus(b"w" * 16, "name", "host", 1, "default", 1, 0, 0, 0)
    await driver.jobs.insert([*envelopes(6), envelope(queue="other")])
    claims = await driver.jobs.claim(["default", "other", "third"], 7, 30)
    assert [claim.queue for claim in claims] == ["default"] * 6 + ["other"]
    fences = [claim.fence for claim in claims]
    assert (await driver.jobs.extend(fences, 30)).kept == set(fences)
    ends = [Settlement.failed(fence, FAILURE) for fence in fences]
    assert len((await driver.jobs.settle(ends)).accepted) == 7
    assert (await driver.jobs.next_due(["default", "other"])).due is None
    assert len(await driver.failed.page()) == 7
    assert await driver.failed.retry([fences[0].job_id]) == [fences[0].job_id]
    assert await driver.jobs.get(fences[0].job_id) is not None
    assert await driver.failed.forget([fences[1].job_id]) == [fences[1].job_id]
    assert [counts.failed for counts in await driver.queues.counts()] == [4, 1]
    assert await driver.jobs.cancel([fences[0].job_id]) == [fences[0].job_id]
    assert await driver.failed.retry_all() == 5
    assert await driver.queues.clear("default") == 4
    assert await driver.queues.clear("other") == 1
    await driver.workers.heartbeat(worker)
    assert [replace(one, started_at=None, seen=0.0) for one in await driver.workers.all()] == [worker]
    await driver.workers.deregister(worker.id)
    assert await driver.workers.forget(1) == 0


async def test_while_it_is_down_every_call_says_so_and_then_goes_on(
    driver: RedisDriver, local_redis: LocalServer
) -> None:
    await driver.jobs.insert([envelope()])
    claim = await claim_one(driver)
    local_redis.kill()
    calls = [
        lambda: driver.jobs.insert([envelope()]),
        lambda: driver.jobs.claim(["default"], 1, 30),
        lambda: driver.jobs.extend([claim.fence], 30),
        lambda: driver.jobs.settle([Settlement.completed(claim.fence)]),
        lambda: driver.jobs.next_due(["default", "other"]),
        driver.queues.counts,
        driver.check,
    ]
    for call in calls:
        with pytest.raises(BackendUnavailable, match=rf"redis://127.0.0.1:{local_redis.port}/0 does not answer"):
            await call()
    await asyncio.to_thread(local_redis.restart)
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


async def test_many_connections_that_the_kill_cut_are_replaced(driver: RedisDriver, local_redis: LocalServer) -> None:
    await asyncio.gather(*(driver.jobs.insert([job]) for job in envelopes(50)))
    await killed_and_restarted(local_redis)
    await asyncio.gather(*(driver.jobs.insert([job]) for job in envelopes(50)))
    assert len(await driver.jobs.list_jobs(limit=200)) == 100
