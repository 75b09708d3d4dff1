"""The same deaths on the Redis connection: of workers, and of Redis itself under ``appendonly yes``.

The oracle writes outside Redis."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis as Client

from outbox.drivers.values import JobState
from outbox.ids import JobId
from tests.crash.harness import FLAGS, LEASE, MODULES, PROMPT, UNHURRIED, RedisHarness, now
from tests.servers import LocalServer
from tests.support.recorded_jobs import Counted, Gated, GatedInThread, KillsItself
from tests.support.worker_processes import WorkerProcess, until

REDIS = ("--connection", "redis", *FLAGS)
REDIS_UNHURRIED = ("--connection", "redis", *UNHURRIED)
PENDING_CLAIMS = "outbox:{default}:standing"


@pytest.fixture
async def harness(redis_url: str, tmp_path: Path) -> AsyncIterator[RedisHarness]:
    harness = RedisHarness(redis_url, tmp_path)
    yield harness
    await harness.close()


async def test_a_worker_killed_in_the_middle_of_its_jobs(harness: RedisHarness, tmp_path: Path) -> None:
    victim = await harness.workers.started("--concurrency", "8", *REDIS)
    await harness.dispatch(*(Gated() for _ in range(3)))  # which run when it dies, whenever that is
    await harness.oracle.wait("begin", 3)
    await harness.dispatch(*(Counted(number=number, seconds=0.3) for number in range(40)))
    await harness.oracle.wait("begin", 15)
    died = now()
    await victim.kill()
    for attempt in range(2, 9):
        (tmp_path / f"go-{attempt}").touch()
    begun, ended = harness.oracle.runs("begin"), {run.id for run in harness.oracle.runs("end")}
    interrupted = {run.id for run in begun} - ended
    assert interrupted
    latest = await harness.driver.now() + timedelta(seconds=LEASE)
    held = [await harness.stored(job_id) for job_id in harness.ledger.committed if str(job_id) in interrupted]
    assert all(job.reserved_until is None or job.reserved_until <= latest for job in held), "held for one lease more"
    survivor = await harness.workers.started("--concurrency", "8", *REDIS)
    ready = max(now(), died + LEASE)
    await harness.all_done()
    assert await survivor.terminate() == 0
    await harness.verify()
    second_runs = [run for run in harness.oracle.runs("begin") if run.attempt == 2]
    assert {run.id for run in second_runs} >= interrupted
    assert all(run.at <= ready + PROMPT for run in second_runs), "rescued when the lease ended, not much later"


async def test_a_frozen_worker_that_comes_back_changes_nothing(harness: RedisHarness, tmp_path: Path) -> None:
    """SIGSTOP past the lease, then SIGCONT while the next owner is busy with the same jobs: whatever the zombie's
    attempts come to, Redis stays as their next owner left it, and the zombie does not even extend that one's leases."""
    kinds, ends = (Gated, GatedInThread), ("return", "raise", "release", "fail")
    await harness.dispatch(*(kind(first=first) for kind in kinds for first in ends))
    jobs, count = harness.ledger.committed, len(harness.ledger.committed)
    zombie = await harness.workers.started(*REDIS)
    await harness.oracle.wait("begin", count)
    os.kill(zombie.pid, signal.SIGSTOP)
    owner = await harness.workers.started(*REDIS_UNHURRIED)
    await harness.oracle.wait("begin", 2 * count)
    tokens = held_under(harness.url, jobs)
    (tmp_path / "go-1").touch()
    os.kill(zombie.pid, signal.SIGCONT)
    await zombie.event("lease_lost", count)
    await asyncio.sleep(LEASE)
    assert held_under(harness.url, jobs) == tokens
    assert {(await harness.stored(job_id)).attempts for job_id in jobs} == {2}
    (tmp_path / "go-2").touch()
    await owner.event("job_settled", count, outcome="completed", attempt=2)
    assert await zombie.terminate() == 0, "the worker itself is well again"
    assert await owner.terminate() == 0
    assert zombie.of("job_settled") == owner.of("lease_lost") == []
    assert {line["job_id"] for line in zombie.of("lease_lost")} == {str(job_id) for job_id in jobs}
    assert await harness.driver.failed.page() == []
    await harness.verify()


@pytest.mark.parametrize(("verb", "first"), [("settle", "return"), ("settle", "raise"), ("extend", "return")])
async def test_a_call_that_arrives_after_the_lease_changes_nothing(
    harness: RedisHarness, tmp_path: Path, verb: str, first: str
) -> None:
    """The zombie's own clock cannot hold it back here: it froze with the call in its hand."""
    job_id = await harness.only(Gated(first=first))
    harness.workers.modules = f"{MODULES},tests.crash.freezing"
    marker, answer = tmp_path / "freeze", tmp_path / "answer"
    marker.write_text(verb)
    if verb == "settle":
        (tmp_path / "go-1").touch()
    zombie = await harness.workers.started(*REDIS)
    await until(lambda: not marker.exists())
    owner = await harness.workers.started(*REDIS_UNHURRIED)
    await harness.oracle.wait("begin", 2)
    token = held_under(harness.url, [job_id])
    os.kill(zombie.pid, signal.SIGCONT)
    await until(lambda: answer.exists() and answer.read_text(encoding="utf-8") != "")
    assert answer.read_text(encoding="utf-8") == "0 accepted, 1 refused"
    assert held_under(harness.url, [job_id]) == token
    await zombie.event("lease_lost", job_id=str(job_id))
    (tmp_path / "go-2").touch()
    await owner.event("job_settled", job_id=str(job_id), outcome="completed", attempt=2)
    assert await zombie.terminate() == 0
    assert await owner.terminate() == 0
    assert zombie.of("job_settled") == owner.of("lease_lost") == []
    assert await harness.driver.failed.page() == []
    await harness.verify()


def held_under(url: str, jobs: Collection[JobId]) -> dict[JobId, bytes]:
    """Each job's hold as Redis has it: its attempts, and the token of its claim."""
    ids = list(jobs)
    with Client.from_url(url) as client:
        holds = client.hmget("outbox:{default}:held", [job_id.bytes for job_id in ids])
    assert None not in holds
    return dict(zip(ids, holds, strict=True))


async def test_a_job_that_kills_its_process_ends_in_the_failed_jobs(harness: RedisHarness) -> None:
    await harness.dispatch(KillsItself(), *(Counted(number=number, seconds=0.05) for number in range(1, 20)))
    # One job per process: what runs beside such a job dies with it, and loses an attempt, too.
    workers = await harness.workers.start("--processes", "2", "--concurrency", "1", *REDIS)
    await harness.all_done()
    assert await workers.terminate() == 0
    (failed,) = await harness.driver.failed.page()
    assert (failed.name, failed.attempts) == (KillsItself.name, 4)
    assert failed.failure.type == "outbox.errors.AttemptsExhausted"
    assert "lease ended 3 times" in failed.failure.message
    runs = [run for run in harness.oracle.runs("begin") if run.number == 0]
    assert [run.attempt for run in runs] == [1, 2, 3]
    assert len(workers.of("process_ended", exit_code=-signal.SIGKILL)) == 3
    await harness.verify()


async def test_term_under_load_costs_nobody_an_attempt(harness: RedisHarness, tmp_path: Path) -> None:
    leaving = await harness.workers.started("--concurrency", "10", "--grace", "0.3", *REDIS_UNHURRIED)
    await harness.dispatch(Gated(), Gated())  # which run for longer than the grace
    await harness.oracle.wait("begin", 2)
    staying = await harness.workers.started("--concurrency", "10", *REDIS_UNHURRIED)
    load = asyncio.create_task(
        harness.dispatch(*(Counted(number=n, seconds=(0.05, 0.4, 1.0)[n % 3]) for n in range(120)), pause=0.005)
    )
    await until(lambda: len([run for run in harness.oracle.runs("begin") if run.pid == leaving.pid]) >= 20)
    assert await leaving.terminate() == 0
    (tmp_path / "go-1").touch()
    (stopped,) = leaving.of("worker_stopped")
    await load
    await harness.all_done()
    assert await staying.terminate() == 0
    # Some had been claimed and not begun when the signal came.
    handed_back = {each["job_id"] for each in leaving.of("job_settled", outcome="snoozed")}
    begun = {run.id for run in harness.oracle.runs("begin") if run.pid == leaving.pid}
    assert stopped["handed_back"] == len(handed_back)
    assert {run.id for run in harness.oracle.runs("cancelled")} == handed_back & begun != set()
    assert {run.attempt for run in harness.oracle.runs("begin")} == {1}
    assert leaving.of("lease_lost") == staying.of("lease_lost") == []
    await harness.verify()


@pytest.fixture
async def scene_with_its_own_redis(local_redis: LocalServer, tmp_path: Path) -> AsyncIterator[RedisHarness]:
    with Client.from_url(local_redis.url) as client:
        settings = client.config_get("append*")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always")
    harness = RedisHarness(local_redis.url, tmp_path)
    yield harness
    await harness.close()


async def test_redis_killed_under_load(scene_with_its_own_redis: RedisHarness, local_redis: LocalServer) -> None:
    """Twice, while jobs are dispatched, claimed, renewed and settled. The workers live through it."""
    harness = scene_with_its_own_redis
    workers = [await harness.workers.started("--concurrency", "10", "--max-tries", "50", *REDIS) for _ in range(2)]
    jobs = [Counted(number=number, seconds=(0.0, 0.1, 0.5, 2.0)[number % 4]) for number in range(240)]
    load = asyncio.create_task(harness.dispatch(*jobs, pause=0.01))
    for round_ in (1, 2):
        await harness.oracle.wait("begin", 60 * round_)
        await asyncio.to_thread(local_redis.kill)
        for worker in workers:
            await worker.event("connection_down", round_)
        await asyncio.to_thread(local_redis.start)
        for worker in workers:
            await worker.event("connection_up", round_)
    await load
    await harness.all_done()
    for worker in workers:
        await unharmed(worker, outages=2)
    assert len(harness.ledger.committed) == len(jobs)
    assert await harness.driver.failed.page() == []
    await harness.verify()


async def unharmed(worker: WorkerProcess, *, outages: int) -> None:
    assert await worker.terminate() == 0
    assert len(worker.of("connection_down")) == len(worker.of("connection_up")) == outages
    assert worker.of("log") == []
    assert worker.of("settlement_refused") == worker.of("settlements_abandoned") == []


def stand_on(url: str) -> None:
    """Claims that stand do so for another minute, whatever their workers do."""
    with Client.from_url(url) as client:
        for member, score in client.zrange(PENDING_CLAIMS, 0, -1, withscores=True):
            client.zadd(PENDING_CLAIMS, {member: score + 60_000_000})


async def a_claim_stands(url: str) -> None:
    """A worker waits to be given a job."""
    with Client.from_url(url) as client:
        await until(lambda: bool(client.exists(PENDING_CLAIMS)))


async def test_a_worker_that_is_killed_while_it_waits_is_given_nothing(harness: RedisHarness) -> None:
    """Nobody listens any more, whatever its claim says."""
    victim = await harness.workers.started(*REDIS)
    await a_claim_stands(harness.url)
    await victim.kill()
    stand_on(harness.url)
    job_id = await harness.only(Counted(number=1))
    assert (await harness.stored(job_id)).state is JobState.READY
    survivor = await harness.workers.started(*REDIS)
    await harness.all_done()
    assert await survivor.terminate() == 0
    await harness.verify()
    assert [run.attempt for run in harness.oracle.runs("begin")] == [1]


async def test_a_worker_that_is_frozen_while_it_waits_does_not_run_what_it_was_given(harness: RedisHarness) -> None:
    zombie = await harness.workers.started(*REDIS)
    await a_claim_stands(harness.url)
    os.kill(zombie.pid, signal.SIGSTOP)
    stand_on(harness.url)
    job_id = await harness.only(Counted(number=1))
    assert held_under(harness.url, [job_id]), "it was given to the claim"
    owner = await harness.workers.started(*REDIS_UNHURRIED)
    await harness.all_done()
    os.kill(zombie.pid, signal.SIGCONT)
    await zombie.event("lease_lost", job_id=str(job_id))
    assert await zombie.terminate() == 0
    assert await owner.terminate() == 0
    await harness.verify()
    [run] = harness.oracle.runs("begin")
    assert (run.pid, run.attempt) == (owner.pid, 2)
