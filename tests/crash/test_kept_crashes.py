"""What a job returned is kept by the settlement that ends it: both, or neither, and never of a lost lease."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import outbox
from outbox import dispatch
from outbox.drivers.database import DatabaseDriver
from tests.crash.harness import UNHURRIED, end_leases
from tests.crash.kept import Kept
from tests.support.worker_processes import WorkerProcess, Workers, until


async def test_a_result_is_kept_with_the_end_of_its_job(
    migrated_url: str, database: DatabaseDriver, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    job_id = await dispatch(Kept())
    workers.modules = "tests.crash.kept"
    for attempts, fate in enumerate(("killed before", "killed within"), 1):
        await ended(await started(workers, fate, monkeypatch))
        assert await database.finished.latest() == [], fate
        assert len(workers.oracle.runs("kept")) == attempts
        assert await database.jobs.get(job_id) is not None
        await end_leases(database)
    await ended(await started(workers, "killed after", monkeypatch))
    monkeypatch.delenv("KEPT_FATE")
    last = await workers.start(*UNHURRIED, "--stop-when-empty")
    assert await last.exit_code() == 0
    assert [run.attempt for run in workers.oracle.runs("kept")] == [1, 2, 3]
    assert [(job.id, job.result, job.attempts) for job in await database.finished.latest()] == [(job_id, "3", 3)]
    assert await outbox.result(job_id) == 3
    await outbox.disconnect()


async def test_a_worker_that_lost_its_lease_keeps_no_result(
    migrated_url: str, database: DatabaseDriver, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    job_id = await dispatch(Kept())
    await outbox.disconnect()
    workers.modules = "tests.crash.kept"
    frozen = await started(workers, "frozen before", monkeypatch)
    await until(lambda: len(workers.oracle.runs("kept")) == 1)
    await until(lambda: is_stopped(frozen.pid))
    await end_leases(database)
    await ended(await started(workers, "killed before", monkeypatch))
    frozen.send(signal.SIGCONT)
    await frozen.event("lease_lost")
    await frozen.kill()
    assert await database.finished.latest() == [], "attempt 2 has the job, and is not over"
    await end_leases(database)
    monkeypatch.delenv("KEPT_FATE")
    last = await workers.start(*UNHURRIED, "--stop-when-empty")
    assert await last.exit_code() == 0
    [kept] = await database.finished.latest()
    assert (kept.id, kept.result, kept.attempts) == (job_id, "3", 3)


async def started(workers: Workers, fate: str, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    monkeypatch.setenv("KEPT_FATE", fate)
    return await workers.start(*UNHURRIED, "--processes", "1")


async def ended(worker: WorkerProcess) -> None:
    await until(lambda: worker.process.returncode is not None)


def is_stopped(pid: int) -> bool:
    """By a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
