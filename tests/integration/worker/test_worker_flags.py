"""Flags of a worker."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

import outbox
from tests.integration.worker.worker_queue import FAST, Queue
from tests.servers import databases
from tests.support.recorded_jobs import Counted, Endless, Grows, High, Raises
from tests.support.worker_processes import Workers, numbers


@pytest.fixture
def backend() -> str:
    """Most of what is tested here is not about the database; tests that are take `on_every_database`."""
    return "sqlite"


async def test_queues_are_drained_in_order_of_preference(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(5)))
    await queue.put(*(High(number=number) for number in range(10, 15)))
    worker = await workers.start("--queue", "high,default", "--concurrency", "1", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert [run.number for run in workers.oracle.runs("end")] == [10, 11, 12, 13, 14, 0, 1, 2, 3, 4]


async def test_concurrency_is_how_many_run_at_once(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number, seconds=0.1) for number in range(12)))
    worker = await workers.start("--concurrency", "3", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    running, most = 0, 0
    for run in workers.oracle.runs():
        running += 1 if run.what == "begin" else -1
        most = max(most, running)
    assert most == 3


async def test_once(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1), Counted(number=2))
    worker = await workers.start("--once", *FAST)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1]
    await (await workers.start("--once", *FAST)).exit_code()
    worker = await workers.start("--once", "--sleep", "300")
    assert await worker.exit_code() == 0, "with nothing to do it looks once"
    assert numbers(workers.oracle.runs("end")) == [1, 2]


async def test_max_jobs(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(10)))
    worker = await workers.start("--max-jobs", "4", "--concurrency", "3", *FAST)
    assert await worker.exit_code() == 0
    assert len(workers.oracle.runs("end")) == 4
    assert worker.of("worker_stopping", reason="--max-jobs reached")


async def test_max_time(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1, seconds=3.2))
    worker = await workers.start("--max-time", "3", "--grace", "0", *FAST)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1], "what runs is finished"


async def test_memory_has_an_exit_code_of_its_own(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Grows() for _ in range(4)))
    worker = await workers.start("--memory", "250", *FAST)
    assert await worker.exit_code() == 12


async def test_tries_timeout_and_backoff_of_the_worker_are_for_jobs_that_do_not_say(
    workers: Workers, queue: Queue
) -> None:
    await queue.put(Raises(number=1), Endless(number=2))
    flags = ("--max-tries", "2", "--timeout", "0.2", "--backoff", "0.3")
    worker = await workers.start(*flags, "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    begins = [run for run in workers.oracle.runs("begin") if run.number == 1]
    assert [run.attempt for run in begins] == [1, 2]
    assert begins[1].at - begins[0].at >= 0.3
    failed = {job.name: job for job in await queue.driver.failed.page()}
    assert failed[Raises.name].failure.type == "ValueError"
    assert failed[Endless.name].failure.type == "outbox.errors.JobTimeout"
    assert {job.attempts for job in failed.values()} == {2}
    (hook,) = workers.oracle.runs("hook")
    assert hook.error == "as it always does"


async def test_sleep_is_the_longest_pause_and_a_delayed_job_cuts_it_short(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1), delay=1.0)
    worker = await workers.started("--sleep", "60", "--wake", "poll")
    await worker.event("job_settled")
    put = 1
    while len(workers.oracle.runs("end")) == put:
        assert put < 5, "it does not sleep for as long as it was told"
        put += 1
        await asyncio.sleep(0.5)  # it looks once more, and goes to sleep; sooner or later, as the machine lets it
        await queue.put(Counted(number=put))
        await asyncio.sleep(1)
    assert numbers(workers.oracle.runs("end")) == list(range(1, put))
    assert await worker.terminate() == 0


async def test_rest_is_a_pause_in_the_slot(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(3)))
    worker = await workers.start("--rest", "0.3", "--concurrency", "1", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    begins = [run.at for run in workers.oracle.runs("begin")]
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(begins))


async def test_lease_and_name(workers: Workers, queue: Queue) -> None:
    await queue.put(Endless())
    worker = await workers.started("--lease", "7", "--name", "mailer", "--concurrency", "4", *FAST)
    await workers.oracle.wait("begin")
    while not (rows := await queue.driver.workers.all()) or not rows[0].running:
        await asyncio.sleep(0.05)
    (row,) = rows
    assert (row.name, row.pid, row.queues, row.concurrency) == ("mailer", worker.pid, "default", 4)
    (job,) = await queue.driver.jobs.list_jobs()
    assert job.reserved_until is not None
    assert 0 < (job.reserved_until - await queue.driver.now()).total_seconds() <= 7


async def test_connections_share_the_worker(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second_url = databases.fresh_file(tmp_path / "second")
    databases.create_tables(second_url, outbox.metadata)
    (tmp_path / "pyproject.toml").write_text(f'[tool.outbox.connections.second]\nurl = "{second_url}"\n')
    second = Queue(second_url)
    await queue.put(Counted(number=1))
    await second.put(Counted(number=2))
    worker = await workers.start("--connection", "database,second", "--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1, 2]
    assert {event["connection"] for event in worker.of("job_settled")} == {"database", "second"}
    (started,) = worker.of("worker_started")
    assert len(started["connections"]) == 2
    await second.close()


@pytest.mark.parametrize("flag", ["--once", "--stop-when-empty"])
async def test_a_connection_that_is_named_twice_is_empty_once(workers: Workers, flag: str) -> None:
    worker = await workers.start("--connection", "database,database", flag, *FAST)
    assert await worker.exit_code() == 0
    (started,) = worker.of("worker_started")
    assert len(started["connections"]) == 1


async def test_a_profile_from_a_module_in_the_current_directory(workers: Workers, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "profiles.py").write_text(
        "from outbox import WorkerOptions\nslow = WorkerOptions(queue='high', concurrency=2, stop_when_empty=True)\n"
    )
    await queue.put(High(number=1))
    await queue.put(Counted(number=2))
    worker = await workers.start("profiles:slow", "--concurrency", "5")
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1]
    (started,) = worker.of("worker_started")
    assert (started["queues"], started["concurrency"]) == (["high"], 5)


async def test_lines_for_people(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1), Raises())
    worker = await workers.start("--stop-when-empty", "--max-tries", "1", *FAST, json_lines=False)
    assert await worker.exit_code() == 0
    text = "".join(worker.other)
    assert f"done      {Counted.name}" in text
    assert f"failed    {Raises.name}" in text
    assert "drains default from database: sqlite+aiosqlite:///" in text
    assert "\x1b[" not in text
