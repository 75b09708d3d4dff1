"""Claims and settlements on Redis: many at once, once each, at a cost that does not grow with the batch."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis as Client

from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.jobs import insert as inserting
from outbox.drivers.redis.keys import key
from outbox.drivers.redis.script import Call
from outbox.drivers.values import JobState, NextDue, WorkerStatus
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes

JOBS, CLAIMERS, BATCH = 20_000, 16, 50


class Gate:
    """Holds back the next command of a driver, as a network can."""

    def __init__(self, driver: RedisDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived, self._open = asyncio.Event(), asyncio.Event()
        self._send = driver.store.send
        monkeypatch.setattr(driver.store, "send", self._wait)

    async def _wait(self, call: Call) -> Any:
        self.arrived.set()
        await self._open.wait()
        return await self._send(call)

    def open(self) -> None:
        self._open.set()


# --- exactly once


async def test_sixteen_claimers_take_every_job_once(redis_url: str, driver: RedisDriver) -> None:
    await driver.jobs.insert(envelopes(JOBS))
    drivers = [RedisDriver(redis_url, pool_size=1) for _ in range(CLAIMERS)]
    taken: Counter[object] = Counter()
    accepted: list[Settlement] = []

    async def drain(claimer: RedisDriver) -> None:
        while claims := await claimer.jobs.claim(["default"], BATCH, 60):
            taken.update(claim.fence.job_id for claim in claims)
            settled = await claimer.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
            accepted.extend(settled.accepted)

    await asyncio.gather(*(drain(claimer) for claimer in drivers))
    for claimer in drivers:
        await claimer.close()
    assert len(taken) == JOBS
    assert set(taken.values()) == {1}
    assert len(accepted) == JOBS
    assert await driver.queues.counts() == []


async def test_nothing_but_the_names_of_queues_is_left_behind(driver: RedisDriver, admin: Client) -> None:
    await driver.jobs.insert([*envelopes(100), envelope(queue="mail", priority=0)])
    claims = await driver.jobs.claim(["default", "mail"], 200, 30)
    await driver.jobs.settle([Settlement.released(claim.fence) for claim in claims])
    claims = await driver.jobs.claim(["default", "mail"], 200, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE) for claim in claims])
    assert await driver.failed.retry_all() == 101
    claims = await driver.jobs.claim(["default", "mail"], 200, 30)
    await driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])
    assert set(admin.keys()) == {b"outbox:queues"}


async def test_an_insert_that_is_repeated_leaves_a_held_job_held(driver: RedisDriver, other: RedisDriver) -> None:
    job = envelope()
    await driver.jobs.insert([job])
    claim = await claim_one(driver)
    before = await driver.jobs.get(job.id)
    await other.jobs.insert([job, envelope(queue="mail")])
    assert await driver.jobs.get(job.id) == before
    assert await other.jobs.claim(["default"], 10, 30) == []
    assert len((await driver.jobs.settle([Settlement.completed(claim.fence)])).accepted) == 1


# --- the fence, at the worst moment


async def test_an_end_that_is_under_way_while_another_takes_the_job_changes_nothing(
    driver: RedisDriver, other: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    gate = Gate(driver, monkeypatch)
    ending = asyncio.create_task(driver.jobs.settle([Settlement.completed(lost.fence)]))
    await gate.arrived.wait()
    owner = await claim_one(other)
    gate.open()
    assert len((await ending).stale) == 1
    assert len((await other.jobs.settle([Settlement.completed(owner.fence)])).accepted) == 1


async def test_a_renewal_that_is_under_way_while_another_takes_the_job_changes_nothing(
    driver: RedisDriver, other: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.jobs.insert([envelope()])
    lost = await claim_one(driver, lease=0)
    gate = Gate(driver, monkeypatch)
    renewing = asyncio.create_task(driver.jobs.extend([lost.fence], 3600))
    await gate.arrived.wait()
    owner = await claim_one(other, lease=30)
    before = await other.jobs.get(owner.fence.job_id)
    gate.open()
    assert (await renewing).lost == {lost.fence}
    assert await other.jobs.get(owner.fence.job_id) == before


async def test_a_driver_that_claimed_nothing_renews_and_ends_what_another_claimed(
    driver: RedisDriver, other: RedisDriver
) -> None:
    """The heartbeat of a worker has a driver of its own."""
    await driver.jobs.insert([envelope(queue=queue) for queue in ("a", "b", "c")])
    fences = [claim.fence for claim in await driver.jobs.claim(["a", "b", "c"], 3, 30)]
    for _ in range(2):
        assert (await other.jobs.extend(fences, 60)).kept == set(fences)
    await driver.jobs.settle([Settlement.completed(fences[0])])
    assert (await other.jobs.extend(fences, 60)).lost == {fences[0]}
    assert len((await other.jobs.settle([Settlement.completed(fence) for fence in fences])).accepted) == 2


# --- what it costs


def calls(admin: Client) -> dict[str, int]:
    found = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in admin.info("commandstats").items()}
    # What the client says of itself when it connects, only newer servers understand.
    aside = {"info", "config|resetstat", "eval", "client|setinfo"}
    return {name: number for name, number in found.items() if name not in aside}


async def test_a_batch_is_a_constant_number_of_commands(driver: RedisDriver, admin: Client) -> None:
    await one_round(driver, admin, 3)  # the server learns the scripts
    few = await one_round(driver, admin, 10)
    many = await one_round(driver, admin, 900)
    assert many == few
    assert sum(few["completed"].values()) < 10
    assert few["completed"]["evalsha"] == few["insert"]["evalsha"] == few["claim"]["evalsha"] == 1


async def one_round(driver: RedisDriver, admin: Client, size: int) -> dict[str, dict[str, int]]:
    costs = {}

    async def counted(what: str, work: Any) -> Any:
        admin.config_resetstat()
        done = await work
        costs[what] = calls(admin)
        return done

    await counted("insert", driver.jobs.insert(envelopes(size)))
    claims = await counted("claim", driver.jobs.claim(["default"], size, 30))
    fences = [claim.fence for claim in claims]
    assert len(fences) == size
    await counted("extend", driver.jobs.extend(fences, 30))
    await counted("released", driver.jobs.settle([Settlement.released(fence) for fence in fences]))
    fences = [claim.fence for claim in await counted("claim again", driver.jobs.claim(["default"], size, 30))]
    await counted("failed", driver.jobs.settle([Settlement.failed(fence, FAILURE) for fence in fences]))
    await counted("retry", driver.failed.retry([fence.job_id for fence in fences]))
    fences = [claim.fence for claim in await driver.jobs.claim(["default"], size, 30)]
    await counted("completed", driver.jobs.settle([Settlement.completed(fence) for fence in fences]))
    return costs


async def test_an_idle_look_at_many_queues_costs_two_round_trips(
    driver: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = 0
    await driver.jobs.claim(["one", "two"], 10, 30)  # the server learns the scripts
    await driver.jobs.next_due(["one", "two"])
    for name in ("send", "send_all"):
        original = getattr(driver.store, name)

        async def counted(work: Any, original: Any = original) -> Any:
            nonlocal trips
            trips += 1
            return await original(work)

        monkeypatch.setattr(driver.store, name, counted)
    assert await driver.jobs.claim([f"queue{number}" for number in range(50)], 10, 30) == []
    assert trips == 2
    assert (await driver.jobs.next_due([f"queue{number}" for number in range(50)])).due is None
    assert trips == 3


async def test_a_look_tells_what_there_is_to_wait_for_and_with_whom(driver: RedisDriver) -> None:
    assert await driver.jobs.next_due(["a", "b"]) == NextDue(None, 1)
    await driver.jobs.insert([envelope(queue="a", delay=50), envelope(queue="c")])
    claim = await claim_one(driver, "c", lease=20)
    due = (await driver.jobs.next_due(["a", "c"])).due
    assert due is not None
    assert 15 < due <= 20, "the end of a lease counts"
    await driver.jobs.extend([claim.fence], 0)
    assert (await driver.jobs.next_due(["a", "c"])).due == 0.0
    await driver.queues.pause("c")
    due = (await driver.jobs.next_due(["a", "c"])).due
    assert due is not None
    assert 45 < due <= 50, "a paused queue does not"
    for number, (queues, running) in enumerate([("a", 0), ("x,a", 1), ("b", 1), ("a", 2), ("aa", 0)]):
        await driver.workers.heartbeat(WorkerStatus(bytes([number]) * 16, "name", "host", 1, queues, 2, running, 0, 0))
    assert [(await driver.jobs.next_due(queues)).idle for queues in (["a"], ["a", "b"], ["b"], ["z"])] == [2, 3, 1, 1]


async def test_a_full_first_queue_leaves_the_others_alone(driver: RedisDriver) -> None:
    await driver.jobs.insert([*envelopes(10, queue="high"), *envelopes(10, queue="low"), *envelopes(10, queue="last")])
    assert Counter(claim.queue for claim in await driver.jobs.claim(["high", "low", "last"], 7, 30)) == {"high": 7}
    assert Counter(claim.queue for claim in await driver.jobs.claim(["high", "low", "last"], 5, 30)) == {
        "high": 3,
        "low": 2,
    }
    reserved = {counts.queue: counts.reserved for counts in await driver.queues.counts()}
    assert reserved == {"high": 10, "last": 0, "low": 2}


async def test_counting_reads_what_is_held_and_not_what_waits(driver: RedisDriver, admin: Client) -> None:
    await driver.jobs.insert([*envelopes(5_000), envelope(delay=3600)])
    await driver.jobs.claim(["default"], 10, 3600)
    admin.config_resetstat()
    [counts] = await driver.queues.counts()
    assert (counts.ready, counts.delayed, counts.reserved) == (4_990, 1, 10)
    assert sum(calls(admin).values()) <= 20


# --- order, and more than a command of Redis can take


async def test_thousands_are_claimed_in_the_order_of_their_dispatch(driver: RedisDriver) -> None:
    sent = envelopes(9_500)
    await driver.jobs.insert(sent)
    claims = await driver.jobs.claim(["default"], 9_000, 30)
    assert [claim.fence.job_id for claim in claims] == [job.id for job in sent[:9_000]]
    fences = [claim.fence for claim in claims]
    assert len((await driver.jobs.extend(fences, 30)).kept) == 9_000
    assert len((await driver.jobs.settle([Settlement.released(fence) for fence in fences])).accepted) == 9_000
    assert await driver.queues.clear("default") == 9_500


async def test_an_insert_into_several_queues_is_one_script(driver: RedisDriver, admin: Client) -> None:
    await driver.jobs.insert([envelope(queue="warm")])
    admin.config_resetstat()
    await driver.jobs.insert([envelope(number, queue=f"q{number % 3}", priority=number % 10) for number in range(30)])
    assert calls(admin)["evalsha"] == 1
    assert sum(counts.ready for counts in await driver.queues.counts()) == 31


MEGABYTES = [f'{{"text": "{"x" * 990_000}"}}', f'{{"text": "{"é" * 495_000}"}}']
"""Payloads of a megabyte, in ASCII and not."""


@pytest.mark.parametrize("payload", MEGABYTES, ids=["ascii", "utf-8"])
@pytest.mark.parametrize("verb", ["insert", "insert_once"])
async def test_no_string_is_larger_than_a_server_takes(
    driver: RedisDriver, admin: Client, verb: str, payload: str
) -> None:
    """Most take 512 MB; a server that takes less shows it for less."""
    jobs = [envelope(payload=payload, queue=f"q{number % 2}") for number in range(40)]
    with set_to(admin, "proto-max-bulk-len", 16_000_000):
        await getattr(driver.jobs if verb == "insert" else driver.relay_target, verb)(jobs)
    claims = await driver.jobs.claim(["q0", "q1"], 40, 30)
    assert [claim.fence.job_id for claim in claims] == [job.id for job in [*jobs[::2], *jobs[1::2]]]
    assert {claim.payload for claim in claims} == {payload}


@pytest.mark.parametrize("verb", ["insert", "insert_once"])
async def test_no_command_is_larger_than_a_server_takes(
    driver: RedisDriver, admin: Client, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Most take 1 GB."""
    monkeypatch.setattr(inserting, "BYTES_PER_SCRIPT", 8_000_000)
    jobs = [envelope(payload=MEGABYTES[0]) for _ in range(40)]
    with set_to(admin, "client-query-buffer-limit", 32_000_000):
        await getattr(driver.jobs if verb == "insert" else driver.relay_target, verb)(jobs)
    claims = await driver.jobs.claim(["default"], 40, 30)
    assert [claim.fence.job_id for claim in claims] == [job.id for job in jobs]


async def test_an_ordinary_batch_is_accepted_by_one_script(driver: RedisDriver, admin: Client) -> None:
    jobs = [envelope(payload=f'{{"text": "{"x" * 10_000}"}}') for _ in range(500)]
    await driver.relay_target.insert_once([envelope()])
    admin.config_resetstat()
    assert await driver.relay_target.insert_once(jobs) == frozenset()
    assert calls(admin)["evalsha"] == 1


async def test_what_has_ended_is_told_of_every_script(driver: RedisDriver) -> None:
    jobs = [envelope(payload=MEGABYTES[0]) for _ in range(10)]
    await driver.relay_target.insert_once(jobs)
    claims = await driver.jobs.claim(["default"], 10, 30)
    ended = [claims[0].fence, claims[-1].fence]
    await driver.jobs.settle([Settlement.completed(fence) for fence in ended])
    assert await driver.relay_target.insert_once(jobs) == {fence.job_id for fence in ended}
    assert await driver.relay_target.insert_once([]) == frozenset()


@contextmanager
def set_to(admin: Client, name: str, value: int) -> Iterator[None]:
    before = admin.config_get(name)[name]
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, before)


async def test_microseconds_are_kept(driver: RedisDriver, admin: Client) -> None:
    await driver.jobs.insert([envelope(delay=0.000123)])
    [job] = await driver.jobs.list_jobs()
    assert (job.available_at - job.created_at).microseconds == 123
    [(_, score)] = admin.zrange(key("default", "5"), 0, -1, withscores=True)
    assert score == int(score) > 1.7e15


# --- hands that are not outbox's


async def test_an_id_without_a_job_stops_nobody(driver: RedisDriver, admin: Client) -> None:
    first, second = envelope(1), envelope(2)
    await driver.jobs.insert([first, second])
    admin.hdel(key("default", "jobs"), first.id.bytes)
    assert [claim.fence.job_id for claim in await driver.jobs.claim(["default"], 10, 30)] == [second.id]
    [counts] = await driver.queues.counts()
    assert (counts.ready, counts.reserved) == (0, 1)


async def test_an_id_without_a_job_is_gone_when_nothing_else_is_left(driver: RedisDriver, admin: Client) -> None:
    """Or it would be due for ever. A claim that has found all jobs looks no further."""
    job, lost = envelope(priority=0), envelope(priority=9)
    await driver.jobs.insert([job, lost])
    admin.hdel(key("default", "jobs"), lost.id.bytes)
    [claim] = await driver.jobs.claim(["default"], 10, 30)
    await driver.jobs.settle([Settlement.completed(claim.fence)])
    assert (await driver.jobs.next_due(["default"])).due == 0
    assert await driver.jobs.claim(["default"], 10, 30) == []
    assert (await driver.jobs.next_due(["default"])).due is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe not utf-8", b"1\nname", b"\n\n\n\n"])
async def test_a_job_that_cannot_be_read_is_claimed_and_can_be_failed(
    driver: RedisDriver, admin: Client, body: bytes
) -> None:
    """G9: it goes to the failed jobs, and the ones behind it run."""
    bad, good = envelope(1), envelope(2)
    await driver.jobs.insert([bad, good])
    admin.hset(key("default", "jobs"), bad.id.bytes, body)
    claims = await driver.jobs.claim(["default"], 10, 30)
    assert [claim.fence.job_id for claim in claims] == [bad.id, good.id]
    assert [job.id for job in await driver.jobs.list_jobs()] == [bad.id, good.id]
    await driver.jobs.settle([Settlement.failed(claims[0].fence, FAILURE), Settlement.completed(claims[1].fence)])
    [failed] = await driver.failed.page()
    assert (failed.id, failed.failure) == (bad.id, FAILURE)
    raw = admin.hget(key("default", "failures"), bad.id.bytes)
    assert isinstance(raw, bytes)
    assert raw.endswith(body)


async def test_a_payload_and_headers_with_line_breaks_stay_apart(driver: RedisDriver) -> None:
    job = envelope(payload='{\n "number":\n 1}\n')._replace(headers='{\n"max_tries": 7}')
    await driver.jobs.insert([job])
    claim = await claim_one(driver)
    assert (claim.payload, json.loads(claim.headers)) == (job.payload, {"max_tries": 7})


async def test_states_are_told_apart(driver: RedisDriver) -> None:
    held, ended, delayed, ready = envelopes(4)
    delayed = delayed._replace(delay=3600.0)
    await driver.jobs.insert([held])
    claim = await claim_one(driver, lease=3600)
    await driver.jobs.insert([ended])
    await claim_one(driver, lease=0)
    await driver.jobs.insert([delayed, ready])
    jobs = {job.id: job for job in await driver.jobs.list_jobs()}
    assert [jobs[job.id].state for job in (held, ended, delayed, ready)] == [
        JobState.RESERVED,
        JobState.READY,
        JobState.DELAYED,
        JobState.READY,
    ]
    assert jobs[held.id].reserved_until == jobs[held.id].available_at
    assert [jobs[job.id].attempts for job in (held, ended, delayed)] == [1, 1, 0]
    [counts] = await driver.queues.counts()
    assert (counts.ready, counts.delayed, counts.reserved) == (2, 1, 1)
    assert await driver.jobs.find(claim.fence.job_id.hex[:9]) != []
    assert await driver.jobs.find(claim.fence.job_id.hex[-12:]) == [claim.fence.job_id]
    assert await driver.jobs.find("0123456789abcdef") == []


async def test_clearing_leaves_what_is_held_and_ends_while_jobs_come_in(
    driver: RedisDriver, other: RedisDriver
) -> None:
    await driver.jobs.insert(envelopes(3_500))
    held = await driver.jobs.claim(["default"], 1_200, 3600)
    await driver.jobs.claim(["default"], 100, 0)
    await driver.jobs.insert([job._replace(delay=60.0) for job in envelopes(1_500)])
    stop = asyncio.Event()

    async def keep_inserting() -> int:
        number = 0
        while not stop.is_set():
            await other.jobs.insert(envelopes(10))
            number += 10
        return number

    inserting = asyncio.create_task(keep_inserting())
    removed = await driver.queues.clear("default")
    stop.set()
    more = await inserting
    [counts] = await driver.queues.counts()
    assert counts.reserved == len(held) == 1_200
    assert counts.delayed == 0
    assert removed + counts.ready == 3_500 - 1_200 + 1_500 + more
