"""`outbox dispatch`: a job from the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import JobState
from tests.support.commands import Ran, run_process

JOBS = """
from outbox import Job

class SendReceipt(Job):
    queue = "mail"
    order_id: int
    note: str = ""

    async def handle(self) -> None: ...

class Nightly(Job):
    name = "reports.Nightly"

    async def handle(self) -> None: ...

class Off(Job):
    dispatch_if = False

    async def handle(self) -> None: ...
"""


@pytest.fixture
async def driver(migrated_url: str, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    (tmp_path / "shop_jobs.py").write_text(JOBS)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


async def dispatch(directory: Path, url: str, *arguments: str) -> Ran:
    return await run_process(directory, "dispatch", *arguments, DATABASE_URL=url, OUTBOX_JOBS="shop_jobs")


async def test_a_job_is_stored_with_its_fields_and_options(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    options = ("--queue", "slow", "--delay", "5m", "--priority", "2", "--max-tries", "7", "--timeout", "9")
    ran = await dispatch(tmp_path, migrated_url, "shop_jobs.SendReceipt", '{"order_id": 7}', *options)
    assert (ran.code, ran.err) == (0, "")
    [job] = await driver.jobs.list_jobs()
    assert ran.out == f"{job.id}\n"
    assert (job.queue, job.name, job.priority, job.state) == ("slow", "shop_jobs.SendReceipt", 2, JobState.DELAYED)
    assert json.loads(job.payload) == {"order_id": 7, "note": ""}
    assert json.loads(job.headers) == {"max_tries": 7, "timeout": 9.0}
    assert 290 < (job.available_at - job.created_at).total_seconds() <= 301
    [entry] = await driver.audit.latest(5)
    assert (entry.action, entry.target["name"], entry.target["queue"]) == ("dispatch", job.name, "slow")
    assert entry.by


async def test_a_class_is_enough_where_no_other_has_its_name(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    ran = await dispatch(tmp_path, migrated_url, "Nightly", "--json")
    assert ran.code == 0
    [job] = await driver.jobs.list_jobs()
    assert ran.document == {"job_id": str(job.id), "name": "reports.Nightly"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SendReceipt"], 1, "the field 'order_id' does not validate"),
        (["SendReceipt", '{"order_id": "x"}'], 1, "the field 'order_id' does not validate"),
        (["SendReceipt", "{"], 1, "SendReceipt: the job does not validate"),
        (["SendReceipt", "[]"], 1, "SendReceipt: the job does not validate"),
        (["SendReciept", "{}"], 1, "no job is named SendReciept: did you mean shop_jobs.SendReceipt?"),
        (["Unheard", "{}"], 1, "import its module with OUTBOX_JOBS"),
        (["Nightly", "--priority", "10"], 1, "a priority is a whole number from 0"),
        (["Nightly", "--queue", "Größe"], 2, "a queue's name is"),
        (["Nightly", "--delay", "soon"], 2, "is not a time like"),
        (["Nightly", "--delay", "nan"], 2, "is not a time like"),
        (["Nightly", "--connection", "none"], 2, "there is no connection 'none'"),
    ],
)
@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)])
async def test_what_cannot_be_a_job_is_refused_and_nothing_is_stored(
    driver: DatabaseDriver, migrated_url: str, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    ran = await dispatch(tmp_path, migrated_url, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert await driver.jobs.list_jobs() == []


async def test_a_job_that_is_left_out_is_said(driver: DatabaseDriver, migrated_url: str, tmp_path: Path) -> None:
    ran = await dispatch(tmp_path, migrated_url, "Off", "--json")
    assert (ran.code, json.loads(ran.out)["created"]) == (0, False)
    assert "no job was made: its `dispatch_if` says no" in ran.err
    assert await driver.jobs.list_jobs() == []
