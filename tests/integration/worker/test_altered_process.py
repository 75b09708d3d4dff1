"""Whatever code of a job does to its process, the other jobs keep their attempts, and the log says what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.worker.worker_queue import Queue
from tests.support.altering_jobs import HARMLESS, REPORTED, Alters, Forks, ForksInThread, Innocent
from tests.support.worker_processes import WorkerProcess, Workers, numbers, until

BESIDE, AFTER = range(5), range(5, 8)


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path, modules="tests.support.altering_jobs")
    yield workers
    await workers.close()


def _is_told(worker: WorkerProcess, what: str) -> bool:
    return any(what in event["what"] for event in worker.of("process_altered"))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_what_jobs_do_to_their_process_costs_no_other_job_an_attempt(
    workers: Workers, queue: Queue, tmp_path: Path, loop: str
) -> None:
    """One worker process for all of it, one thing after the other, beside five jobs that run from the first to the
    last."""
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('not for this test')\n")
    await queue.put(*(Innocent(number=number, directory=str(tmp_path)) for number in BESIDE))
    worker = await workers.started("--sleep", "0.05", "--lease", "5", "--concurrency", "10")
    await workers.oracle.wait("begin", len(BESIDE))
    for done, how in enumerate([*REPORTED, *HARMLESS]):
        await queue.put(Alters(how=how))
        await worker.event("job_settled", done + 1, name=Alters.name)
        await queue.put(Innocent(number=AFTER[0]))
        await workers.oracle.wait("end", done + 1)
        if how in REPORTED:
            await until(partial(_is_told, worker, REPORTED[how][1]), lambda how=how: f"{how}: {worker.events[-9:]}")
    await asyncio.to_thread((tmp_path / "open").touch)
    await workers.oracle.wait("end", len(BESIDE) + len(REPORTED) + len(HARMLESS))
    assert await worker.terminate() == 0, "".join(worker.other)[-900:]
    assert set(numbers(workers.oracle.runs("end"))) == {*BESIDE, AFTER[0]}
    assert {run.pid for run in workers.oracle.runs("end")} == {worker.pid}
    assert {run.attempt for run in workers.oracle.runs("begin") if run.number in BESIDE} == {1}
    settled = [event for event in worker.of("job_settled") if event["name"].endswith("Innocent")]
    assert {(event["outcome"], event["attempt"]) for event in settled} == {("completed", 1)}
    assert "hunter2" not in str(worker.events)
    assert {job.name for job in await queue.driver.failed.page()} <= {Alters.name}


async def test_a_child_of_a_job_that_comes_back_from_its_handler_is_no_second_worker(
    workers: Workers, queue: Queue, tmp_path: Path
) -> None:
    await queue.put(*(Innocent(number=number, directory=str(tmp_path)) for number in BESIDE))
    worker = await workers.started("--sleep", "0.05", "--concurrency", "10")
    await workers.oracle.wait("begin", len(BESIDE))
    forks = [kind(how=how) for kind in (Forks, ForksInThread) for how in ("return", "exit", "raise")]
    for done, job in enumerate(forks, 1):
        await queue.put(job)
        await until(lambda done=done: len(_forks_settled(worker)) == done)
    await asyncio.to_thread((tmp_path / "open").touch)
    await workers.oracle.wait("end", len(BESIDE))
    assert await worker.terminate() == 0, "".join(worker.other)[-900:]
    assert [event["outcome"] for event in _forks_settled(worker)] == ["completed"] * len(forks)
    assert {(run.pid, run.attempt) for run in workers.oracle.runs("begin")} == {(worker.pid, 1)}
    assert len(worker.of("worker_stopping")) == 1
    assert len(worker.of("job_settled")) == len(forks) + len(BESIDE)


def _forks_settled(worker: WorkerProcess) -> list[dict[str, object]]:
    return [event for event in worker.of("job_settled") if "Forks" in event["name"]]
