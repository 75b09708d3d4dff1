"""Real worker processes that die, freeze and stop, and what is left of their jobs.

The oracle writes outside outbox's tables."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import OperationalError

import outbox
from outbox.ids import JobId
from tests.crash import dying
from tests.crash.harness import FLAGS, LEASE, MODULES, PROMPT, UNHURRIED, DatabaseHarness, now
from tests.servers import LocalServer, Server, databases, sql
from tests.servers.databases import connections_of
from tests.support.recorded_jobs import Counted, Gated, GatedInThread, KillsItself
from tests.support.worker_processes import WorkerProcess, until


async def test_a_worker_killed_in_the_middle_of_its_jobs(harness: DatabaseHarness, tmp_path: Path) -> None:
    victim = await harness.workers.started("--concurrency", "8", *FLAGS)
    await harness.dispatch(*(Gated() for _ in range(3)))  # which run when it dies, whenever that is
    await harness.oracle.wait("begin", 3)
    await harness.dispatch(*(Counted(number=number, seconds=0.3) for number in range(50)))
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
    survivor = await harness.workers.started("--concurrency", "8", *FLAGS)
    ready = max(now(), died + LEASE)
    await harness.all_done()
    assert await survivor.terminate() == 0
    await harness.verify()
    second_runs = [run for run in harness.oracle.runs("begin") if run.attempt == 2]
    assert {run.id for run in second_runs} >= interrupted
    assert all(run.at <= ready + PROMPT for run in second_runs), "rescued when the lease ended, not much later"


@pytest.mark.parametrize("moment", [dying.BEFORE_COMMIT, dying.AFTER_COMMIT])
async def test_a_worker_killed_in_the_middle_of_a_settlement(
    harness: DatabaseHarness, tmp_path: Path, moment: str
) -> None:
    harness.workers.modules = f"{MODULES},tests.crash.dying"
    await harness.dispatch(*(Counted(number=number) for number in range(25)))
    (tmp_path / "die").write_text(moment)
    victim = await harness.workers.start("--concurrency", "5", *FLAGS)
    assert await victim.exit_code() == -signal.SIGKILL
    assert victim.of("job_settled") == [], "it died before it could know"
    ended = {run.id for run in harness.oracle.runs("end")}
    assert ended
    rescuer = await harness.workers.started(*FLAGS)
    await harness.all_done()
    await rescuer.terminate()
    await harness.verify()
    again = {run.id for run in harness.oracle.runs("begin") if run.attempt > 1}
    if moment == dying.AFTER_COMMIT:
        assert ended - again, "what was committed did not run again"
    else:
        assert ended <= again, "what was not committed did"


async def test_a_frozen_worker_that_comes_back_changes_nothing(harness: DatabaseHarness, tmp_path: Path) -> None:
    """SIGSTOP past the lease, then SIGCONT while the next owner is busy with the same jobs: whatever the zombie's
    attempts come to, the store stays as their next owner left it, and the zombie does not even extend that one's
    leases."""
    for kind in (Gated, GatedInThread):
        for first in ("return", "raise", "release", "fail"):
            await harness.dispatch(kind(first=first))
    jobs, count = harness.ledger.committed, len(harness.ledger.committed)
    zombie = await harness.workers.started(*FLAGS)
    await harness.oracle.wait("begin", count)
    await freeze(zombie.pid, harness.url)
    owner = await harness.workers.started(*UNHURRIED)
    await harness.oracle.wait("begin", 2 * count)
    tokens = reserved_by(harness.url, jobs)
    (tmp_path / "go-1").touch()
    os.kill(zombie.pid, signal.SIGCONT)
    await zombie.event("lease_lost", count)
    await asyncio.sleep(LEASE)
    assert reserved_by(harness.url, jobs) == tokens
    assert {(await harness.stored(job_id)).attempts for job_id in jobs} == {2}
    (tmp_path / "go-2").touch()
    await owner.event("job_settled", count, outcome="completed", attempt=2)
    assert await zombie.terminate() == 0, "the worker itself is well again"
    assert await owner.terminate() == 0
    assert zombie.of("job_settled") == owner.of("lease_lost") == []
    assert {line["job_id"] for line in zombie.of("lease_lost")} == {str(job_id) for job_id in jobs}
    assert await harness.driver.failed.page() == []
    await harness.verify()


async def freeze(pid: int, url: str) -> None:
    """SIGSTOP between two transactions. One in the middle of a transaction would keep its locks for as long as the
    server keeps its connection, and on SQLite for ever: that is about the database, not about leases."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.2)
        if not in_transaction(url):
            return
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.05)


def in_transaction(url: str) -> bool:
    """Whether the frozen process is, which nobody else shares the database with."""
    with sql.connection(url) as connection:
        if connection.dialect.name != "sqlite":
            return bool(transactions_in(connection, make_url(url).database or ""))
        try:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("ROLLBACK")
        except OperationalError:
            return True
        return False


def transactions_in(connection: Connection, name: str) -> set[int]:
    """The ids of the connections that have an open transaction in the database `name`.

    InnoDB answers from a copy that is up to 0.1 s old, and older while others read it. A copy that has the transaction
    of this connection is new enough."""
    own = connection.scalar(text("SELECT CONNECTION_ID()"))
    connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    others = text(
        "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx "
        f"WHERE trx_mysql_thread_id = CONNECTION_ID() OR trx_mysql_thread_id IN ({connections_of(connection)})"
    )
    while own not in (found := set(connection.scalars(others, {"name": name}))):
        time.sleep(0.12)
    return found - {own}


def reserved_by(url: str, jobs: Collection[JobId]) -> set[tuple[bytes, bytes]]:
    """The tokens of the jobs' claims, each with its job."""
    ids = ", ".join(f"x'{job_id.hex}'" for job_id in jobs)
    with sql.connection(url) as connection:
        rows = connection.exec_driver_sql(f"SELECT id, reserved_by FROM queue_jobs WHERE id IN ({ids})").all()
    assert len(rows) == len(jobs)
    return {(bytes(row.id), bytes(row.reserved_by)) for row in rows}


async def test_a_job_that_kills_its_process_ends_in_the_failed_table(harness: DatabaseHarness) -> None:
    await harness.dispatch(KillsItself(), *(Counted(number=number, seconds=0.05) for number in range(1, 20)))
    # One job per process: what runs beside such a job dies with it, and loses an attempt, too.
    fleet: list[WorkerProcess] = []
    async with asyncio.timeout(120):
        while await harness.driver.jobs.list_jobs(limit=1):
            if sum(worker.process.returncode is None for worker in fleet) < 2:
                fleet.append(await harness.workers.started("--concurrency", "1", *FLAGS))
            await asyncio.sleep(0.05)
    for worker in fleet:
        if worker.process.returncode is None:
            assert await worker.terminate() == 0
    assert [worker.process.returncode for worker in fleet if worker.process.returncode] == [-signal.SIGKILL] * 3
    (failed,) = await harness.driver.failed.page()
    assert (failed.name, failed.attempts) == (KillsItself.name, 4)
    assert failed.failure.type == "outbox.errors.AttemptsExhausted"
    assert "lease ended 3 times" in failed.failure.message
    runs = [run for run in harness.oracle.runs("begin") if run.number == 0]
    assert [run.attempt for run in runs] == [1, 2, 3]
    await harness.verify()


async def test_term_under_load_costs_nobody_an_attempt(harness: DatabaseHarness, tmp_path: Path) -> None:
    leaving = await harness.workers.started("--concurrency", "10", "--grace", "0.3", *UNHURRIED)
    await harness.dispatch(Gated(), Gated())  # which run for longer than the grace
    await harness.oracle.wait("begin", 2)
    staying = await harness.workers.started("--concurrency", "10", *UNHURRIED)
    load = asyncio.create_task(
        harness.dispatch(*(Counted(number=n, seconds=(0.05, 0.4, 1.0)[n % 3]) for n in range(150)), pause=0.005)
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
async def harness_with_its_own_server(local_database: LocalServer, tmp_path: Path) -> AsyncIterator[DatabaseHarness]:
    with databases.fresh_database(Server(local_database.kind, local_database.url)) as url:
        databases.create_tables(url, outbox.metadata)
        harness = DatabaseHarness(url, tmp_path)
        yield harness
        await harness.close()


async def test_the_database_server_killed_under_load(
    harness_with_its_own_server: DatabaseHarness, local_database: LocalServer
) -> None:
    """Twice, while transactions commit, jobs are claimed, renewed and settled."""
    harness = harness_with_its_own_server
    workers = [await harness.workers.started("--concurrency", "10", "--max-tries", "50", *FLAGS) for _ in range(2)]
    jobs = [Counted(number=number, seconds=(0.0, 0.1, 0.5, 2.0)[number % 4]) for number in range(400)]
    load = asyncio.create_task(harness.dispatch(*jobs, pause=0.01))
    for round_ in (1, 2):
        await harness.oracle.wait("begin", 60 * round_)
        await asyncio.to_thread(local_database.kill)
        for worker in workers:
            await worker.event("connection_down", round_)
        await asyncio.to_thread(local_database.start)
        for worker in workers:
            await worker.event("connection_up", round_)
    await load
    await harness.all_done()
    for worker in workers:
        assert await worker.terminate() == 0
        assert len(worker.of("connection_down")) == len(worker.of("connection_up")) == 2
        assert worker.of("log") == []
        assert worker.of("settlement_refused") == worker.of("settlements_abandoned") == []
    assert len(harness.ledger.committed) + len(harness.ledger.rolled_back) == len(jobs)
    assert await harness.driver.failed.page() == []
    await harness.verify()
