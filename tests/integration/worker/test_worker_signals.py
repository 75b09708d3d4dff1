"""What signals do to worker processes, alone and under a supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
from pathlib import Path

import pytest

from outbox.drivers.values import JobState
from tests.integration.worker.worker_queue import FAST, Queue
from tests.support.recorded_jobs import Counted, Endless, Gated
from tests.support.worker_processes import Workers, numbers


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU])
async def test_hup_lets_the_running_job_end_as_term_does(workers: Workers, queue: Queue, number: int) -> None:
    await queue.put(Counted(number=1, seconds=1))
    worker = await workers.started(*FAST)
    await workers.oracle.wait("begin")
    worker.send(number)
    assert await worker.exit_code() == 0
    assert numbers(workers.oracle.runs("end")) == [1]


async def test_signals_without_a_meaning_are_reported_and_end_nothing(workers: Workers, queue: Queue) -> None:
    await queue.put(Counted(number=1, seconds=2))
    worker = await workers.started(*FAST)
    await workers.oracle.wait("begin")
    for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGWINCH, signal.SIGPIPE):
        worker.send(number)
    worker.send(signal.SIGRTMIN + 5)
    await worker.event("signal_ignored", 5)
    assert {event["signal"] for event in worker.of("signal_ignored")} == {
        *("SIGUSR1", "SIGALRM", "SIGVTALRM", "SIGPROF", "signal 39"),
    }
    await workers.oracle.wait("end")
    assert await worker.terminate() == 0


async def test_usr2_pauses_claiming_and_cont_resumes(workers: Workers, queue: Queue) -> None:
    await queue.put(Gated(number=1))
    worker = await workers.started(*FAST)
    await workers.oracle.wait("begin")
    worker.send(signal.SIGUSR2)
    (paused,) = await worker.event("worker_paused")
    assert paused["running"] == 1
    await queue.put(Counted(number=2))
    await asyncio.to_thread(workers.oracle.path.with_name("go-1").touch)
    await worker.event("job_settled")
    assert numbers(workers.oracle.runs("begin")) == [1], "what runs goes on, and nothing is claimed"
    worker.send(signal.SIGCONT)
    await worker.event("worker_resumed")
    await workers.oracle.wait("end", 2)
    assert await worker.terminate() == 0


async def test_a_paused_worker_that_was_stopped_stays_paused_and_ends_by_term(workers: Workers, queue: Queue) -> None:
    worker = await workers.started(*FAST)
    worker.send(signal.SIGUSR2)
    await worker.event("worker_paused")
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(1.5)  # what is tested is that it notices how long it stood still
    worker.send(signal.SIGCONT)
    await worker.event("signal_ignored", signal="SIGCONT")
    assert worker.of("worker_resumed") == []
    assert await worker.terminate() == 0


async def test_a_second_int_says_which_jobs_wait_for_their_leases(workers: Workers, queue: Queue) -> None:
    ids = await queue.put(Endless(), Endless())
    worker = await workers.started("--grace", "60", *FAST)
    await workers.oracle.wait("begin", 2)
    worker.send(signal.SIGINT)
    await worker.event("worker_stopping")
    worker.send(signal.SIGINT)
    assert await worker.exit_code() == 130
    (killed,) = worker.of("worker_killed")
    assert sorted(killed["running"]) == sorted(f"{Endless.name} {job_id}" for job_id in ids)
    assert {job.state for job in await queue.driver.jobs.list_jobs()} == {JobState.RESERVED}


async def test_a_supervisor_passes_signals_on(workers: Workers, queue: Queue) -> None:
    worker = await workers.started("--processes", "2", "--grace", "60", *FAST)
    await worker.event("worker_started", 2)
    worker.send(signal.SIGUSR1)
    worker.send(signal.SIGUSR2)
    await worker.event("worker_paused", 2)
    pid = worker.of("process_started")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    await worker.event("worker_paused", 3)
    await queue.put(Endless())
    worker.send(signal.SIGCONT)
    await worker.event("worker_resumed", 2)
    await workers.oracle.wait("begin")
    worker.send(signal.SIGHUP)
    await worker.event("worker_stopping", 2)
    worker.send(signal.SIGINT)
    assert await worker.exit_code() == 130
    assert sum(len(event["running"]) for event in worker.of("worker_killed")) == 1


async def test_a_supervisor_hears_at_once_of_a_signal_that_another_thread_gets(workers: Workers, queue: Queue) -> None:
    """The kernel gives it to another one while a signal is pending for the main thread."""
    worker = await workers.started("--processes", "2", *FAST)
    await worker.event("worker_started", 2)
    thread = other_thread_that_hears(worker.pid, signal.SIGUSR2)
    assert ctypes.CDLL(None).tgkill(worker.pid, thread, signal.SIGUSR2) == 0
    await worker.event("worker_paused", 2)
    assert await worker.terminate() == 0


def other_thread_that_hears(pid: int, number: int) -> int:
    for task in Path(f"/proc/{pid}/task").iterdir():
        (blocked,) = re.findall(r"SigBlk:\s*(\w+)", (task / "status").read_text())
        if int(task.name) != pid and not int(blocked, 16) >> (number - 1) & 1:
            return int(task.name)
    raise AssertionError("the main thread is the only one that hears of it")


async def test_hup_stays_ignored_under_nohup(workers: Workers, queue: Queue) -> None:
    workers.ignored_signals = (signal.SIGHUP,)
    worker = await workers.started(*FAST)
    worker.send(signal.SIGHUP)
    await queue.put(Counted(number=1))
    await workers.oracle.wait("end")
    assert worker.of("worker_stopping") == []
    assert await worker.terminate() == 0
