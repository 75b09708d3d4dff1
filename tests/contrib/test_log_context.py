"""What the log of an application says about the job that wrote a line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

import outbox
from outbox import Job, Outbox, Settings
from outbox.contrib.logs import FIELDS, JobContextFilter, job_context, structlog_processor
from outbox.events import JobSettled
from outbox.ids import new_job_id
from outbox.runtime.reporting.logs import as_record
from outbox.settlement import Outcome

_log = logging.getLogger("shop.receipts")


class Logs(Job):
    queue = "mail"
    tenant_id: int | None = None

    async def handle(self) -> None:
        _log.info("in a coroutine")
        await asyncio.create_task(self.elsewhere("in a task"))

    async def elsewhere(self, message: str) -> None:
        _log.info(message)


class LogsInAThread(Job):
    queue = "mail"
    fair_key = "customer"
    customer: str

    def handle(self) -> None:
        _log.info("in a thread")


class Structured(Job):
    queue = "mail"

    async def handle(self) -> None:
        structlog.get_logger().info("sent", queue="of the application")


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)

    def fields(self, message: str) -> dict[str, Any]:
        (record,) = (each for each in self.seen if each.getMessage() == message)
        return {field: getattr(record, field) for field in FIELDS}


@pytest.fixture
def backend() -> str:
    """What is logged does not depend on the database."""
    return "sqlite"


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Outbox]:
    async with Outbox(Settings(database_url=migrated_url)) as client:
        yield client


@pytest.fixture
def records(client: Outbox) -> Iterator[Records]:
    handler = Records()
    with client.use():
        handler.addFilter(JobContextFilter())
        handler.addFilter(JobContextFilter())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    yield handler
    _log.removeHandler(handler)
    _log.setLevel(logging.NOTSET)


async def work(client: Outbox) -> None:
    async with client.worker(queue="mail", stop_when_empty=True, sleep=0.02) as worker:
        await worker.wait()


async def test_a_line_says_which_job_wrote_it(client: Outbox, records: Records) -> None:
    job_id = await client.dispatch(Logs(tenant_id=7))
    _log.info("outside")
    await work(client)
    expected = {
        "job_id": str(job_id),
        "job": Logs.name,
        "queue": "mail",
        "attempt": 1,
        "connection": "database",
        "batch": None,
        "tenant": "7",
        "trace_id": None,
    }
    assert records.fields("in a coroutine") == records.fields("in a task") == expected
    assert records.fields("outside") == dict.fromkeys(FIELDS)
    assert job_context() == {}


async def test_a_plain_handler_says_it_as_well(client: Outbox, records: Records) -> None:
    job_id = await client.dispatch(LogsInAThread(customer="acme"))
    await work(client)
    fields = records.fields("in a thread")
    assert (fields["job_id"], fields["tenant"]) == (str(job_id), "acme")


async def test_a_member_says_of_which_batch(client: Outbox, records: Records) -> None:
    with client.use():
        batch_id = await outbox.dispatch_batch([Logs()], name="receipts")
    await work(client)
    assert records.fields("in a coroutine")["batch"] == str(batch_id)


def test_lines_of_outbox_have_the_fields_of_their_events(records: Records) -> None:
    job_id = new_job_id()
    event = JobSettled(job_id, Logs.name, "mail", "database", 3, Outcome.COMPLETED, 0.1)
    record = as_record(event, 0.0)
    assert JobContextFilter().filter(record)
    fields = {field: getattr(record, field) for field in FIELDS}
    assert fields | {"batch": None} == {
        "job_id": str(job_id),
        "job": Logs.name,
        "queue": "mail",
        "attempt": 3,
        "connection": "database",
        "batch": None,
        "tenant": None,
        "trace_id": None,
    }


def test_a_record_keeps_what_it_has(records: Records) -> None:
    _log.info("by hand", extra={"queue": "mine"})
    assert records.fields("by hand")["queue"] == "mine"


async def test_structlog_adds_the_fields(client: Outbox) -> None:
    seen: list[dict[str, Any]] = []

    def keep(_: Any, __: str, event: Any) -> Any:
        seen.append(dict(event))
        raise structlog.DropEvent

    with client.use():
        structlog.configure(processors=[structlog_processor(), keep])
    try:
        job_id = await client.dispatch(Structured())
        await work(client)
        structlog.get_logger().info("outside")
    finally:
        structlog.reset_defaults()
    assert seen == [
        {
            "event": "sent",
            "job_id": str(job_id),
            "job": Structured.name,
            "queue": "of the application",
            "attempt": 1,
            "connection": "database",
        },
        {"event": "outside"},
    ]
