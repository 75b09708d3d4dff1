"""Worker processes as an operator starts them: every flag, every exit code."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.integration.worker.worker_queue import FAST, Queue, on_every_database
from tests.support.recorded_jobs import Blocks, Counted, Endless, High, InThread
from tests.support.worker_processes import Workers, is_pending, numbers, until


@pytest.fixture
def backend() -> str:
    """Most of what is tested here is not about the database; tests that are take `on_every_database`."""
    return "sqlite"


@on_every_database
async def test_it_drains_the_queue_and_stops_when_it_is_empty(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(50)), *(InThread(number=n) for n in range(50, 60)))
    await queue.put(Counted(number=60), delay=0.5)
    await queue.put(High(number=99))
    worker = await workers.start("--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == list(range(61))
    assert [job.name for job in await queue.driver.jobs.list_jobs()] == [High.name]
    assert await queue.driver.workers.all() == []
    (stopped,) = worker.of("worker_stopped")
    assert (stopped["processed"], stopped["failed"], stopped["handed_back"]) == (61, 0, 0)
    assert worker.other == []


@on_every_database
async def test_term_hands_back_what_does_not_finish_without_costing_an_attempt(workers: Workers, queue: Queue) -> None:
    ids = await queue.put(Counted(number=1, seconds=1.0), Endless(number=2), Counted(number=3, seconds=60))
    worker = await workers.started("--grace", "2", "--timeout", "0", *FAST)
    await workers.oracle.wait("begin", 3)
    assert await worker.terminate() == 0
    assert numbers(workers.oracle.runs("end")) == [1]
    (stopped,) = worker.of("worker_stopped")
    assert (stopped["processed"], stopped["handed_back"]) == (1, 2)
    left = await queue.driver.jobs.list_jobs()
    assert {job.id for job in left} == set(ids[1:])
    assert {(job.attempts, job.state.value) for job in left} == {(0, "ready")}, "claimable at once, as if never claimed"
    assert await queue.driver.workers.all() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
async def test_int_and_quit_stop_as_term_does(workers: Workers, number: int) -> None:
    worker = await workers.started(*FAST)
    worker.send(number)
    assert await worker.exit_code() == 0


async def test_a_second_int_stops_hard(workers: Workers, queue: Queue) -> None:
    await queue.put(Endless())
    worker = await workers.started("--grace", "60", *FAST)
    await workers.oracle.wait("begin")
    worker.send(signal.SIGINT)
    await worker.event("worker_stopping")
    worker.send(signal.SIGINT)
    assert await worker.exit_code() == 130


async def test_a_second_int_stops_hard_even_while_a_job_blocks_the_loop(workers: Workers, queue: Queue) -> None:
    await queue.put(Blocks())
    worker = await workers.started(*FAST)
    await workers.oracle.wait("begin")
    worker.send(signal.SIGINT)
    # Two that come at the same time are one to the kernel, and to Python until it has called the handler.
    await until(lambda: not is_pending(worker.pid, signal.SIGINT))
    await asyncio.sleep(0.2)
    worker.send(signal.SIGINT)
    assert await worker.exit_code() == 130


@pytest.mark.parametrize("backend", [pytest.param("mysql", marks=pytest.mark.mysql)])
async def test_jobs_that_take_longer_than_those_before_them_are_moved_out_of_the_way(
    workers: Workers, queue: Queue
) -> None:
    """They were expected to be short, and are held where claims look for work."""
    await queue.put(*(Counted(number=number) for number in range(40)))
    await queue.put(*(Counted(number=number, seconds=30) for number in range(100, 108)))
    await queue.put(*(Counted(number=number) for number in range(200, 280)))
    await workers.started("--lease", "200", "--concurrency", "8", "--grace", "0", *FAST)
    deadline = time.monotonic() + 20
    while True:
        held = [job for job in await queue.driver.jobs.list_jobs(limit=200) if job.reserved_until is not None]
        if len(held) == 8 and all(job.available_at == job.reserved_until for job in held):
            break
        assert time.monotonic() < deadline, f"{len(held)} are held, and not all were moved"
        await asyncio.sleep(0.1)
