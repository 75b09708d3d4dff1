"""Worker processes as an operator starts them: every flag, every exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import outbox
from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.ids import JobId
from outbox.options import JobOptions
from tests.crash import unanswered
from tests.crash.blocking import BlocksDuringASettlement
from tests.servers import LocalServer, Server, databases
from tests.support.recorded_jobs import (
    Blocks,
    Counted,
    Endless,
    EndsAProcess,
    Grows,
    High,
    InThread,
    LeavesATaskBehind,
    LeavesAThreadBehind,
    Raises,
    SignalsAProcess,
    Stuck,
)
from tests.support.worker_processes import Workers, numbers, until

FAST = ("--sleep", "0.05")


class Queue:
    """The store, from outside."""

    def __init__(self, url: str) -> None:
        self.driver = DatabaseDriver(url)

    async def put(self, *jobs: Job, **options: Any) -> list[JobId]:
        envelopes = [serialize(job, JobOptions(**options)) for job in jobs]
        await self.driver.jobs.insert(envelopes)
        return [envelope.id for envelope in envelopes]

    async def close(self) -> None:
        await self.driver.close()


@pytest.fixture
def backend() -> str:
    """Most of what is tested here is not about the database; tests that are take `on_every_database`."""
    return "sqlite"


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


@pytest.fixture
async def queue(migrated_url: str) -> AsyncIterator[Queue]:
    queue = Queue(migrated_url)
    yield queue
    await queue.close()


on_every_database = pytest.mark.parametrize(
    "backend",
    ["sqlite", pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)],
)


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
    await asyncio.sleep(0.2)  # two that come at the same time are one to the kernel
    worker.send(signal.SIGINT)
    assert await worker.exit_code() == 130


# --- flags


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
    worker = await workers.start("--once", "--sleep", "30")
    assert await worker.exit_code() == 0, "with nothing to do it looks once"
    assert numbers(workers.oracle.runs("end")) == [1, 2]


async def test_max_jobs(workers: Workers, queue: Queue) -> None:
    await queue.put(*(Counted(number=number) for number in range(10)))
    worker = await workers.start("--max-jobs", "4", "--concurrency", "3", *FAST)
    assert await worker.exit_code() == 0
    assert len(workers.oracle.runs("end")) == 4
    assert worker.of("worker_stopping", reason="--max-jobs reached")


async def test_max_time(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1, seconds=1.5))
    worker = await workers.start("--max-time", "0.5", "--grace", "0", *FAST)
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
    worker = await workers.started("--sleep", "30", "--wake", "poll")
    await worker.event("job_settled")
    await asyncio.sleep(0.5)  # it looks once more, and goes to sleep
    await queue.put(Counted(number=2))
    await asyncio.sleep(1)
    assert numbers(workers.oracle.runs("end")) == [1], "it sleeps for as long as it was told"
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


# --- processes


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
    await queue.put(*(Counted(number=number) for number in range(9)))
    worker = await workers.start("--processes", "2", "--max-jobs", "2", "--name", "pool", *FAST)
    await until(lambda: len(workers.oracle.runs("end")) == 9)
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


# --- exit codes


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


@on_every_database
async def test_a_job_that_blocks_the_loop_costs_nobody_a_lease(workers: Workers, queue: Queue) -> None:
    """The settlement of another job is under way when the loop stops turning. Were it made on that loop, its
    transaction would stay open, and its locks would keep every lease of this worker from being renewed."""
    workers.modules = "tests.support.recorded_jobs,tests.crash.blocking"
    await queue.put(
        BlocksDuringASettlement(number=1, seconds=2.5),
        Counted(number=2, seconds=0.2),  # ends, and is being settled
        Counted(number=3, seconds=0.3),
    )
    worker = await workers.start("--lease", "1", "--concurrency", "3", "--stop-when-empty", *FAST)
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
    assert time.monotonic() - stopped < 15


# --- outages


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


async def test_an_outage_of_the_database_is_said_once_and_survived(local_database: LocalServer, tmp_path: Path) -> None:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        workers, queue = Workers(url, tmp_path), Queue(url)
        try:
            await queue.put(Counted(number=1), Counted(number=2, seconds=2.0), Counted(number=3, seconds=30.0))
            worker = await workers.started("--lease", "6", "--concurrency", "5", *FAST)
            await worker.event("job_settled")
            await asyncio.to_thread(local_database.kill)
            await worker.event("connection_down")
            await workers.oracle.wait("end", 2)  # number 2 ends while nothing can be written
            await workers.oracle.wait("cancelled")  # number 3 stops before its lease ends
            await asyncio.to_thread(local_database.start)
            await worker.event("connection_up")
            await worker.event("job_settled", job_id=workers.oracle.runs("end")[1].id)
            await until(lambda: [run.number for run in workers.oracle.runs("begin")].count(3) == 2)
            await queue.put(Counted(number=4))
            await workers.oracle.wait("end", 3)
            await worker.kill()
            assert len(worker.of("connection_down")) == len(worker.of("connection_up")) == 1
            assert [run.attempt for run in workers.oracle.runs("begin") if run.number == 3] == [1, 1]
            assert worker.of("log") == []
        finally:
            await workers.close()
            await queue.close()


@pytest.mark.parametrize("verb", ["claim", "settle"])
async def test_a_database_killed_between_a_commit_and_its_answer_costs_no_attempt_and_no_hook(
    local_database: LocalServer, tmp_path: Path, verb: str
) -> None:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        workers, queue = Workers(url, tmp_path, "tests.support.recorded_jobs,tests.crash.unanswered"), Queue(url)
        try:
            unanswered.order_for(verb, workers.oracle.path).write_text(str(local_database.pid))
            await queue.put(Raises(number=1))
            worker = await workers.start("--max-tries", "1", *FAST)
            await worker.event("connection_down")
            await asyncio.to_thread(local_database.kill)
            await asyncio.to_thread(local_database.start)
            await workers.oracle.wait("hook")
            assert await worker.terminate() == 0
            assert [(run.what, run.attempt) for run in workers.oracle.runs()] == [("begin", 1), ("hook", 1)]
            assert [failed.failure.type for failed in await queue.driver.failed.page()] == ["ValueError"]
            assert worker.of("lease_lost") == []
        finally:
            await workers.close()
            await queue.close()


async def test_a_database_that_hangs_for_longer_than_a_lease_costs_no_attempt(
    local_database: LocalServer, tmp_path: Path
) -> None:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        workers, queue = Workers(url, tmp_path), Queue(url)
        try:
            await queue.put(Counted(number=1, seconds=30.0))
            worker = await workers.started("--lease", "3", "--max-tries", "1", *FAST)
            await workers.oracle.wait("begin")
            assert local_database.pid is not None
            os.kill(local_database.pid, signal.SIGSTOP)
            try:
                await workers.oracle.wait("cancelled")  # before its lease ends
                await asyncio.sleep(2)  # which it does
            finally:
                os.kill(local_database.pid, signal.SIGCONT)
            await workers.oracle.wait("begin", 2)
            await worker.kill()
            assert [run.attempt for run in workers.oracle.runs("begin")] == [1, 1]
            assert await queue.driver.failed.page() == []
        finally:
            await workers.close()
            await queue.close()


async def test_a_database_that_is_not_there_yet_is_waited_for(local_database: LocalServer, tmp_path: Path) -> None:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        await asyncio.to_thread(local_database.kill)
        workers, queue = Workers(url, tmp_path), Queue(url)
        try:
            worker = await workers.started(*FAST)
            await worker.event("connection_down")
            await asyncio.to_thread(local_database.start)
            await worker.event("connection_up")
            await queue.put(Counted(number=1))
            await workers.oracle.wait("end")
            assert await worker.terminate() == 0
            assert len(worker.of("connection_down")) == 1
        finally:
            await workers.close()
            await queue.close()
