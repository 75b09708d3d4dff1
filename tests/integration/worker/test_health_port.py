"""``--health-port`` of real workers, alone and with several processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.options import JobOptions
from tests.support.http import fetch, fetch_until
from tests.support.recorded_jobs import Blocks, Counted, Raises
from tests.support.worker_processes import WorkerProcess, Workers

FAST = ("--sleep", "0.05", "--health-port", "0")


@pytest.fixture
def backend() -> str:
    return "sqlite"


async def url_of(worker: WorkerProcess) -> str:
    (opened,) = await worker.event("health_port_opened")
    assert opened["paths"] == ["/live", "/ready", "/metrics"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", opened["url"])
    return str(opened["url"])


def sample(page: str, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(page):
        for each in family.samples:
            if each.name == name and labels.items() <= each.labels.items():
                return each.value
    return None


async def test_a_worker_answers_and_counts(workers: Workers, driver: DatabaseDriver) -> None:
    worker = await workers.started(*FAST)
    url = await url_of(worker)
    assert await fetch_until(f"{url}/ready", 200) == "ok\n"
    assert await fetch(f"{url}/live") == (200, "ok\n")
    await driver.jobs.insert([serialize(Counted(number=number)) for number in range(3)])
    await driver.jobs.insert([serialize(Raises(), JobOptions(max_tries=1))])
    await worker.event("job_settled", 4)
    async with asyncio.timeout(20):
        while not await driver.workers.all():
            await asyncio.sleep(0.05)
    status, page = await fetch(f"{url}/metrics")
    assert status == 200
    assert sample(page, "outbox_jobs_settled_total", queue="default", outcome="completed") == 3
    assert sample(page, "outbox_job_run_seconds_count", queue="default", job=Counted.name) == 3
    assert sample(page, "outbox_job_wait_seconds_count", queue="default", job=Counted.name) == 3
    assert sample(page, "outbox_slots", state="free") == 20
    assert sample(page, "outbox_workers") == 1
    assert await worker.terminate() == 0


async def test_a_blocked_loop_is_seen_although_the_handler_never_yields(
    workers: Workers, driver: DatabaseDriver
) -> None:
    worker = await workers.started(*FAST)
    url = await url_of(worker)
    await driver.jobs.insert([serialize(Blocks(seconds=60))])
    await workers.oracle.wait("begin")
    told = await fetch_until(f"{url}/live", 503)
    assert re.fullmatch(r"the event loop has not run for 1\d s\n", told)


async def test_a_supervisor_answers_for_its_processes_and_adds_them_up(
    workers: Workers, driver: DatabaseDriver
) -> None:
    supervisor = await workers.start(*FAST, "--processes", "2", "--concurrency", "1", "--max-jobs", "2")
    await supervisor.event("worker_started", 2)
    url = await url_of(supervisor)
    await fetch_until(f"{url}/ready", 200)
    await driver.jobs.insert([serialize(Counted(number=number)) for number in range(3)])
    await supervisor.event("job_settled", 3)
    page = (await fetch(f"{url}/metrics"))[1]
    assert sample(page, "outbox_jobs_settled_total", queue="default", outcome="completed") == 3
    # Each process is replaced after two of them.
    await supervisor.event("worker_started", 3)
    await fetch_until(f"{url}/ready", 200)
    page = (await fetch(f"{url}/metrics"))[1]
    assert sample(page, "outbox_jobs_settled_total", queue="default", outcome="completed") == 3
    assert sample(page, "outbox_slots", state="free") == 2
    (killed,) = supervisor.of("process_started", index=2)[-1:]
    os.kill(killed["pid"], signal.SIGSTOP)
    try:
        assert await fetch_until(f"{url}/live", 503) == "process 2: it does not answer within 5 s\n"
    finally:
        os.kill(killed["pid"], signal.SIGCONT)
    assert await fetch_until(f"{url}/live", 200) == "ok\n"


async def test_a_port_that_is_taken_ends_the_second_worker(workers: Workers) -> None:
    url = await url_of(await workers.started(*FAST))
    second = await workers.start("--health-port", url.rpartition(":")[2])
    assert await second.exit_code() == 2
    assert "another worker may use it" in "".join(second.other)
