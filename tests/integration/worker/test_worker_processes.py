"""Workers of several processes, and processes that jobs fork."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.integration.worker.worker_queue import FAST, Queue
from tests.support.recorded_jobs import Counted, Endless, EndsAProcess, SignalsAProcess
from tests.support.worker_processes import Workers, numbers, until


@pytest.fixture
def backend() -> str:
    """Most of what is tested here is not about the database; tests that are take `on_every_database`."""
    return "sqlite"


async def test_processes_share_the_work_and_replace_one_that_is_killed(workers: Workers, queue: Queue) -> None:
    put = 40
    await queue.put(*(Counted(number=number, seconds=0.2) for number in range(put)))
    worker = await workers.start("--processes", "2", "--concurrency", "2", "--lease", "1", *FAST)
    await worker.event("process_started", 2)
    await workers.oracle.wait("begin", 8)
    victim = workers.oracle.runs("begin")[-1].pid
    os.kill(victim, signal.SIGKILL)
    (ended,) = await worker.event("process_ended", pid=victim)
    assert ended["exit_code"] == -signal.SIGKILL
    await worker.event("process_started", 3)
    while len({run.pid for run in workers.oracle.runs("begin")}) < 3:  # until the new one has begun a job
        await queue.put(Counted(number=put, seconds=0.2))
        await workers.oracle.wait("end", put := put + 1)
    await until(lambda: set(numbers(workers.oracle.runs("end"))) == set(range(put)))
    assert await worker.terminate() == 0
    assert worker.of("process_altered") == [], "what a supervisor has told its processes is not of the jobs"
    pids = {run.pid for run in workers.oracle.runs("begin")}
    assert len(pids) == 3
    assert worker.pid not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_processes_end_together_when_the_queue_is_empty(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(20)))
    worker = await workers.start("--processes", "2", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert len(workers.oracle.runs("end")) == 20


async def test_a_process_that_reached_its_limit_is_replaced_by_the_supervisor(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(5)))
    worker = await workers.start("--processes", "2", "--max-jobs", "2", "--name", "pool", *FAST)
    await until(lambda: len(workers.oracle.runs("end")) == 5)
    for index in (1, 2):  # one of them may do everything before the other has started
        await worker.event("worker_started", worker=f"pool:{index}")
    assert await worker.terminate() == 0
    assert {event["exit_code"] for event in worker.of("process_ended", restart_in=0.0)} == {13}
    assert {event["worker"] for event in worker.of("worker_started")} == {"pool:1", "pool:2"}


async def test_processes_stop_by_themselves_when_the_supervisor_is_killed(workers: Workers, queue: Queue) -> None:
    await queue.put(Endless())
    worker = await workers.start("--processes", "2", "--grace", "0", *FAST)
    await worker.event("worker_started", 2)
    await workers.oracle.wait("begin")
    worker.process.kill()
    await worker.process.wait()
    await worker.event("worker_stopped", 2)
    while (await queue.driver.jobs.list_jobs())[0].state.value != "ready":
        await asyncio.sleep(0.05)


async def test_reload_starts_anew_when_a_file_changes(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text("from outbox import WorkerOptions\nworker = WorkerOptions(concurrency=3)\n")
    worker = await workers.start("changing", "--reload", *FAST)
    await worker.event("worker_started", concurrency=3)
    source.write_text("from outbox import WorkerOptions\nworker = WorkerOptions(concurrency=4)  # now\n")
    (changed,) = await worker.event("sources_changed")
    assert changed["paths"] == [str(source)]
    await worker.event("worker_started", concurrency=4)
    source.write_text("this is not Python\n")
    await worker.event("process_ended", exit_code=2)
    source.write_text("from outbox import WorkerOptions\nworker = WorkerOptions(concurrency=5)\n")
    await worker.event("worker_started", concurrency=5)
    assert await worker.terminate() == 0


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_of_workers(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    else:
        (tmp_path / "uvloop.py").write_text("raise ImportError('not here')\n")


@pytest.mark.usefixtures("event_loop_of_workers")
async def test_processes_that_a_job_forks_are_ended_by_term(workers: Workers, queue: Queue) -> None:
    await queue.put(EndsAProcess())
    worker = await workers.started(*FAST)
    (end,) = await workers.oracle.wait("end")
    assert end.error == str([-signal.SIGTERM] * 10)
    assert await worker.terminate() == 0
    assert worker.other == []


@pytest.mark.usefixtures("event_loop_of_workers")
async def test_signals_of_processes_that_a_job_forks_are_not_heard_by_the_worker(
    workers: Workers, queue: Queue
) -> None:
    await queue.put(SignalsAProcess())
    worker = await workers.started(*FAST)
    (end,) = await workers.oracle.wait("end")
    assert end.error == "[]"
    assert await worker.terminate() == 0
