"""Exit codes of a worker, and jobs that try to end or block it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.blocking import BlocksDuringASettlement
from tests.integration.worker.worker_queue import FAST, Queue, on_every_database
from tests.servers import databases
from tests.support.recorded_jobs import Blocks, Counted, LeavesATaskBehind, LeavesAThreadBehind, Stuck
from tests.support.worker_processes import Workers, numbers


@pytest.fixture
def backend() -> str:
    """Most of what is tested here is not about the database; tests that are take `on_every_database`."""
    return "sqlite"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--connection", "nowhere"], "no connection 'nowhere'"),
        (["--queue", "Not A Queue"], "a queue's name"),
        (["no.such.profile"], "cannot be imported"),
        (["--lease", "0"], "lease"),
    ],
)
async def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    workers: Workers, flags: Sequence[str], message: str
) -> None:
    worker = await workers.start(*flags)
    assert await worker.exit_code() == 2
    (line,) = worker.other
    assert message in line


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_database_without_the_tables_is_exit_code_2(tmp_path: Path, processes: str) -> None:
    workers = Workers(databases.fresh_file(tmp_path), tmp_path)
    worker = await workers.start("--processes", processes)
    assert await worker.exit_code() == 2
    assert all("alembic upgrade head" in line for line in worker.other)
    assert len(worker.other) <= int(processes)
    assert worker.of("worker_started") == []


async def test_jobs_that_cannot_be_imported_are_exit_code_2(workers: Workers) -> None:
    workers.modules = "no.such.jobs"
    worker = await workers.start()
    assert await worker.exit_code() == 2
    assert "no.such.jobs" in worker.other[0]


async def test_a_worker_full_of_stuck_jobs_ends_so_that_another_can_start(workers: Workers, queue: Queue) -> None:
    await queue.put(Stuck(number=1), Stuck(number=2))
    worker = await workers.start("--concurrency", "2", "--grace", "0", *FAST)
    assert await worker.exit_code() == 14
    assert len(worker.of("job_overdue")) == 2
    assert {job.failure.type for job in await queue.driver.failed.page()} == {"outbox.errors.JobTimeout"}


async def test_a_job_that_blocks_the_loop_for_ever_costs_the_process(workers: Workers, queue: Queue) -> None:
    await queue.put(Blocks())
    worker = await workers.start("--timeout", "0.5", "--lease", "2", *FAST)
    (blocked,) = await worker.event("loop_blocked")
    assert "time.sleep" in blocked["stack"]
    assert await worker.exit_code() == 15
    (killed,) = worker.of("worker_killed")
    assert Blocks.name in killed["reason"]
    (job,) = await queue.driver.jobs.list_jobs()
    assert job.attempts == 1, "its lease was renewed while it blocked, and the attempt counts"


@on_every_database
async def test_a_job_that_blocks_the_loop_costs_nobody_a_lease(workers: Workers, queue: Queue) -> None:
    """The settlement of another job is under way when the loop stops turning. Were it made on that loop, its
    transaction would stay open, and its locks would keep every lease of this worker from being renewed."""
    workers.modules = "tests.support.recorded_jobs,tests.crash.blocking"
    await queue.put(
        BlocksDuringASettlement(number=1, seconds=4.5),
        Counted(number=2, seconds=0.2),  # ends, and is being settled
        Counted(number=3, seconds=0.3),
    )
    worker = await workers.start("--lease", "4", "--concurrency", "3", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert worker.of("loop_blocked")
    assert worker.of("lease_lost") == worker.of("log") == []
    assert {run.attempt for run in workers.oracle.runs("begin")} == {1}
    assert numbers(workers.oracle.runs("end")) == [1, 2, 3]


async def test_a_task_that_exits_ends_neither_its_job_nor_the_worker(workers: Workers, queue: Queue) -> None:
    await queue.put(LeavesATaskBehind(number=1), Counted(number=2, seconds=0.3))
    worker = await workers.start("--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1, 2]


async def test_a_thread_that_a_job_left_behind_does_not_keep_the_process(workers: Workers, queue: Queue) -> None:
    await queue.put(LeavesAThreadBehind())
    worker = await workers.start("--stop-when-empty", *FAST)
    await worker.event("worker_stopped")
    stopped = time.monotonic()
    assert await worker.exit_code() == 0
    assert time.monotonic() - stopped < 30, "the thread sleeps for a minute"
