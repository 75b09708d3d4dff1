"""A database that is away, hangs, or is not there yet."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import outbox
from tests.crash import unanswered
from tests.integration.worker.worker_queue import FAST, Queue
from tests.servers import LocalServer, Server, databases
from tests.support.recorded_jobs import Counted, Raises
from tests.support.worker_processes import Workers, until


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
            worker = await workers.started("--lease", "6", "--max-tries", "1", *FAST)
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


async def test_a_busy_machine_does_not_make_a_hanging_database_cost_an_attempt(
    local_database: LocalServer, tmp_path: Path
) -> None:
    """The worker does not run for a moment, late in a lease that the database has left unrenewed for long."""
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        workers, queue = Workers(url, tmp_path), Queue(url)
        try:
            await queue.put(Counted(number=1, seconds=30.0))
            worker = await workers.started("--lease", "6", "--max-tries", "1", *FAST)
            await workers.oracle.wait("begin")
            assert local_database.pid is not None
            os.kill(local_database.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(4)  # more than half of a lease
                worker.send(signal.SIGSTOP)
                await asyncio.sleep(1.3)  # more than the margin before its end
                worker.send(signal.SIGCONT)
                await workers.oracle.wait("cancelled")
            finally:
                os.kill(local_database.pid, signal.SIGCONT)
            await workers.oracle.wait("begin", 2)
            await worker.kill()
            assert [run.attempt for run in workers.oracle.runs("begin")] == [1, 1]
            assert await queue.driver.failed.page() == []
        finally:
            await workers.close()
            await queue.close()


async def test_a_claim_that_hangs_for_longer_than_a_lease_costs_no_attempt(
    local_database: LocalServer, tmp_path: Path
) -> None:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        workers, queue = Workers(url, tmp_path, "tests.support.recorded_jobs,tests.crash.unanswered"), Queue(url)
        try:
            order = unanswered.order_for("claim", workers.oracle.path, "freeze")
            order.write_text(str(local_database.pid))
            await queue.put(Counted(number=1))
            worker = await workers.start("--lease", "3", "--max-tries", "1", *FAST)
            await until(lambda: not order.exists())
            await asyncio.sleep(3.5)  # longer than the lease that it asks for
            assert local_database.pid is not None
            os.kill(local_database.pid, signal.SIGCONT)
            await workers.oracle.wait("end")
            assert await worker.terminate() == 0
            assert [(run.what, run.attempt) for run in workers.oracle.runs()] == [("begin", 1), ("end", 1)]
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
