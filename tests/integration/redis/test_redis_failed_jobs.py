"""Failed jobs that stay in Redis: read, put back and removed, whole and once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis import Redis as Client

from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.keys import key
from outbox.drivers.redis.operations import inspection
from outbox.drivers.redis.script import Call
from outbox.drivers.values import JobState
from outbox.errors import JobNotFound
from outbox.ids import JobId, new_job_id
from outbox.settlement import Failure, Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes
from tests.support.commands import REFUSED, fail

HOUR = 3600.0


def age(admin: Client, job_id: JobId, seconds: float, queue: str = "default") -> None:
    """Let a job have failed so many seconds ago, by the server's clock."""
    admin.zincrby(key(queue, "failed"), int(-seconds * 1e6), job_id.bytes)


# --- reading


async def test_a_failed_job_tells_everything(driver: RedisDriver) -> None:
    job = envelope(queue="mail", priority=3)._replace(headers='{"max_tries": 7}')
    await fail(driver, job)
    failed = await driver.failed.get(job.id)
    assert failed is not None
    assert (failed.id, failed.connection, failed.queue, failed.name) == (job.id, "redis", "mail", job.name)
    assert (failed.priority, failed.attempts, failed.failure) == (3, 1, REFUSED)
    assert (failed.payload, json.loads(failed.headers)) == (job.payload, {"max_tries": 7})
    assert abs((failed.failed_at - await driver.now()).total_seconds()) < 60
    assert await driver.failed.page() == [failed]
    assert await driver.failed.get(new_job_id()) is None


async def test_pages_follow_each_other_over_queues_and_where_jobs_failed_at_one_moment(
    driver: RedisDriver, admin: Client
) -> None:
    claims = await fail(driver, *envelopes(6, queue="a"), *envelopes(6, queue="b"))
    together = admin.zrange(key("a", "failed"), 0, 0, withscores=True)[0][1]
    for claim in claims:
        admin.zadd(key(claim.queue, "failed"), {claim.fence.job_id.bytes: together})
    age(admin, claims[4].fence.job_id, HOUR, "a")
    age(admin, claims[7].fence.job_id, -HOUR, "b")
    ids = [claim.fence.job_id for claim in claims]
    expected = [ids[7], *sorted(set(ids) - {ids[4], ids[7]}, reverse=True), ids[4]]
    assert [job.id for job in await driver.failed.page()] == expected
    found = []
    page = await driver.failed.page(limit=5)
    while page:
        found += [job.id for job in page]
        page = await driver.failed.page(limit=5, before=page[-1].id)
    assert found == expected
    assert {job.queue for job in await driver.failed.page("b")} == {"b"}


async def test_a_page_after_a_job_that_is_gone_is_refused(driver: RedisDriver) -> None:
    await fail(driver, envelope())
    with pytest.raises(JobNotFound):
        await driver.failed.page(before=new_job_id())


@pytest.mark.parametrize("digits", [8, 9, 12, 31])
async def test_a_job_is_found_by_either_end_of_its_id(driver: RedisDriver, digits: int) -> None:
    [claim] = await fail(driver, envelope())
    job_id = claim.fence.job_id
    assert await driver.failed.find(job_id.hex[:digits]) == [job_id]
    assert await driver.failed.find(job_id.hex[-digits:]) == [job_id]
    assert await driver.failed.find(job_id.hex[1:digits]) == []
    assert await driver.jobs.find(job_id.hex[:digits]) == []


async def test_at_most_twenty_are_found_and_the_same_ones_each_time(driver: RedisDriver) -> None:
    await driver.jobs.insert(envelopes(2_500))
    everything = sorted(job.id for job in await driver.jobs.list_jobs(limit=3_000))
    assert await driver.jobs.find(everything[0].hex[:4]) == everything[:20]


# --- put back


async def test_a_retried_job_is_as_it_was_dispatched(driver: RedisDriver) -> None:
    job = envelope(queue="mail", priority=2, payload='{"to": "Jürgen"}')._replace(headers='{"max_tries": 7}')
    await fail(driver, job)
    assert await driver.failed.retry([job.id, new_job_id(), job.id]) == [job.id]
    stored = await driver.jobs.get(job.id)
    assert stored is not None
    assert (stored.queue, stored.name, stored.priority, stored.attempts) == ("mail", job.name, 2, 0)
    assert (stored.state, stored.payload) == (JobState.READY, job.payload)
    assert json.loads(stored.headers) == {"max_tries": 7}
    assert await driver.failed.get(job.id) is None
    assert (await claim_one(driver, "mail")).attempt == 1
    assert await driver.failed.retry([job.id]) == []


async def test_two_operators_put_a_job_back_once(driver: RedisDriver, other: RedisDriver) -> None:
    ids = [claim.fence.job_id for claim in await fail(driver, *envelopes(200))]
    both = await asyncio.gather(
        driver.failed.retry(ids), other.failed.retry(ids), driver.failed.retry_all(), other.failed.retry_all()
    )
    assert len(both[0]) + len(both[1]) + both[2] + both[3] == 200
    assert len(await driver.jobs.list_jobs(limit=500)) == 200


async def test_a_live_job_of_the_same_id_is_left_alone(driver: RedisDriver) -> None:
    job = envelope()
    await fail(driver, job)
    await driver.jobs.insert([job._replace(priority=1)])
    running = await claim_one(driver)
    assert await driver.failed.retry([job.id]) == [job.id]
    assert await driver.failed.get(job.id) is None
    assert len(await driver.jobs.list_jobs()) == 1, "an id in two priorities is two jobs"
    assert len((await driver.jobs.settle([Settlement.completed(running.fence)])).accepted) == 1
    assert await driver.queues.counts() == []


async def test_retrying_all_leaves_what_fails_after_it_began(driver: RedisDriver, admin: Client) -> None:
    early, late = await fail(driver, envelope(1), envelope(2))
    age(admin, late.fence.job_id, -HOUR)
    assert await driver.failed.retry_all() == 1
    assert [job.id for job in await driver.failed.page()] == [late.fence.job_id]
    assert [job.id for job in await driver.jobs.list_jobs()] == [early.fence.job_id]


@pytest.mark.parametrize("verb", ["retry_all", "flush"])
async def test_a_job_that_fails_anew_just_before_its_turn_is_left(
    driver: RedisDriver, other: RedisDriver, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Between the look at what failed and the script, the job is retried and fails once more."""
    [claim] = await fail(driver, envelope())
    do = driver.store.do

    async def fail_anew_first(call: Call) -> Any:
        if call.script is not None:
            await other.failed.retry([claim.fence.job_id])
            again = await claim_one(other)
            await other.jobs.settle([Settlement.failed(again.fence, Failure("Later", "", ""))])
        return await do(call)

    monkeypatch.setattr(driver.store, "do", fail_anew_first)
    assert await getattr(driver.failed, verb)() == 0
    assert [job.failure.type for job in await other.failed.page()] == ["Later"]


async def test_a_failed_job_that_cannot_be_read_is_kept(driver: RedisDriver, admin: Client) -> None:
    _, bad = await fail(driver, envelope(1), envelope(2))
    admin.hset(key("default", "failures"), bad.fence.job_id.bytes, b"500001")
    assert await driver.failed.retry_all() == 1
    assert await driver.failed.retry([bad.fence.job_id]) == []
    assert [job.id for job in await driver.failed.page()] == [bad.fence.job_id]
    assert await driver.failed.forget([bad.fence.job_id]) == [bad.fence.job_id]


@pytest.mark.parametrize("verb", ["retry_all", "flush"])
async def test_many_go_in_short_scripts(driver: RedisDriver, admin: Client, verb: str) -> None:
    await fail(driver, *envelopes(2_500), *envelopes(100, queue="mail"))
    assert await getattr(driver.failed, verb)("mail") == 100
    admin.config_resetstat()
    assert await getattr(driver.failed, verb)() == 2_500
    scripts = admin.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert scripts == -(-2_500 // inspection.CHUNK)
    counts = {counts.queue: (counts.ready, counts.failed) for counts in await driver.queues.counts()}
    assert counts == ({} if verb == "flush" else {"default": (2_500, 0), "mail": (100, 0)})


# --- removed


async def test_forgetting_tells_which_there_were(driver: RedisDriver) -> None:
    one, two = await fail(driver, envelope(1), envelope(2))
    assert await driver.failed.forget([new_job_id(), two.fence.job_id]) == [two.fence.job_id]
    assert [job.id for job in await driver.failed.page()] == [one.fence.job_id]


async def test_flush_takes_what_is_older_by_the_servers_clock(driver: RedisDriver, admin: Client) -> None:
    older, younger = await fail(driver, envelope(1), envelope(2))
    age(admin, older.fence.job_id, HOUR + 60)
    age(admin, younger.fence.job_id, HOUR - 60)
    assert await driver.failed.flush(older_than=HOUR) == 1
    assert [job.id for job in await driver.failed.page()] == [younger.fence.job_id]
    assert await driver.failed.flush() == 1
