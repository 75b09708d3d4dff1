"""Where the lines of a worker go, and what happens when they can go nowhere."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.integration.worker.worker_queue import FAST, Queue
from tests.support.commands import run_process
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers

CONFIGURES = """
import logging.config
from tests.support.recorded_jobs import *
logging.config.dictConfig({
    "version": 1,
    "formatters": {"plain": {"format": "%(name)s %(levelname)s %(event)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "worker.log", "formatter": "plain"}},
    "loggers": {"outbox": {"level": "INFO", "handlers": ["file"]}},
})
"""


@pytest.fixture
def backend() -> str:
    return "sqlite"


async def test_the_logging_configuration_of_an_application_routes_them(migrated_url: str, tmp_path: Path) -> None:
    queue, workers = Queue(migrated_url), Workers(migrated_url, tmp_path, modules="configures")
    await asyncio.to_thread((tmp_path / "configures.py").write_text, CONFIGURES)
    await queue.put(Counted(number=1))
    worker = await workers.start("--stop-when-empty", *FAST)
    assert await worker.exit_code() == 0
    assert worker.events == worker.other == []
    lines = (await asyncio.to_thread((tmp_path / "worker.log").read_text)).splitlines()
    assert lines[0].startswith("outbox.worker INFO worker_started started worker ")
    assert any(line.startswith(f"outbox.jobs INFO job_settled done {Counted.name} ") for line in lines)
    assert lines[-1].startswith("outbox.worker INFO worker_stopped ")
    await queue.close()


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">&- 2>&- <&-", "2>&-"])
async def test_an_output_that_takes_nothing_stops_no_worker(
    migrated_url: str, tmp_path: Path, redirection: str
) -> None:
    queue, workers = Queue(migrated_url), Workers(migrated_url, tmp_path)
    await queue.put(Counted(number=1))
    command = f"exec {sys.executable} -m outbox.work --stop-when-empty {redirection}"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, cwd=tmp_path, env=workers.environment(), stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, err
    assert len(workers.oracle.runs("end")) == 1
    assert (b"log lines were not written" in err) == ("full" in redirection)
    await queue.close()


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
async def test_a_pipe_that_nobody_reads_keeps_a_worker_neither_from_jobs_nor_from_its_end(
    migrated_url: str, tmp_path: Path
) -> None:
    queue, workers = Queue(migrated_url), Workers(migrated_url, tmp_path)
    await queue.put(*(Counted(number=number) for number in range(1_500)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outbox.work", "--json", *FAST),
        cwd=tmp_path,
        env=workers.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1,  # what asyncio reads ahead
    )
    await workers.oracle.wait("end", 1_500)
    process.terminate()
    end = asyncio.get_running_loop().time() + 30
    while process.returncode is None and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)
    # What is left in the pipes; their transports close with them.
    await process.communicate()
    assert process.returncode == 0
    assert await queue.driver.jobs.list_jobs(limit=1) == []
    await queue.close()


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
@pytest.mark.parametrize(
    "command",
    ["outbox stats", "outbox failed", "outbox check", "outbox stats --json", "outbox --help", "outbox.work --help"],
)
async def test_a_command_that_cannot_write_says_so_in_one_line(migrated_url: str, tmp_path: Path, command: str) -> None:
    shell = ("-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])")
    for redirection, said in ((">/dev/full", "No space left"), (">&-", ""), ("| sed /answers/q", "")):
        line = f"exec {sys.executable} -m {command} {redirection}"
        ran = await run_process(tmp_path, line, program=shell, DATABASE_URL=migrated_url)
        assert "Traceback" not in ran.err
        assert said in ran.err
        assert len(ran.err.splitlines()) <= 1
        if said:
            assert ran.code == 1
