"""What `outbox.contrib.sentry` sends, at the transport of the SDK."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from outbox import Job, Outbox, Settings
from outbox.contrib import sentry
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Headers, serialize, with_headers
from outbox.events import JobStarted
from outbox.policies.schedule import Tick, check_definition
from outbox.schedule_declarations import Declaration

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


class Fine(Job):
    queue = "mail"

    async def handle(self) -> None:
        sentry_sdk.add_breadcrumb(message="of the job that went well")


class Failing(Job):
    queue = "mail"
    max_tries = 2
    backoff = 0
    address: str = "nowhere"

    async def handle(self) -> None:
        sentry_sdk.set_tag("attempt", self.context.attempt)
        raise ValueError(f"no such address: {self.address}")


class Decides(Job):
    queue = "mail"

    async def handle(self) -> None:
        self.context.fail(LookupError("it is of no use"))


class TooSlow(Job):
    queue = "mail"
    max_tries = 1
    timeout = 0.1

    async def handle(self) -> None:
        await asyncio.sleep(60)


class Captured(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def items(self, kind: str) -> list[dict[str, Any]]:
        return [item.payload.json for each in self.envelopes for item in each.items if item.type == kind]  # type: ignore[misc]


@pytest.fixture
def sent() -> Iterator[Captured]:
    captured = Captured()
    sentry_sdk.init(
        "https://key@sentry.invalid/1", transport=captured, traces_sample_rate=1.0, default_integrations=False
    )
    yield captured
    sentry_sdk.get_client().close(timeout=0)
    # With the default ones, every engine of this process would have listeners from now on.
    sentry_sdk.init(default_integrations=False)


@pytest.fixture
def backend() -> str:
    """What is sent does not depend on the database."""
    return "sqlite"


@pytest.fixture
async def client(migrated_url: str, sent: Captured) -> AsyncIterator[Outbox]:
    async with Outbox(Settings(database_url=migrated_url, encryption_keys=(KEY,))) as client:
        sentry.instrument(client=client, monitor_schedules=True)
        sentry.instrument(client=client, monitor_schedules=True)
        yield client


async def work(client: Outbox) -> None:
    """Until the queue is empty and listeners have heard of it."""
    async with client.worker(queue="mail", stop_when_empty=True, sleep=0.02) as worker:
        await worker.wait()
    await client.close()


async def test_a_trace_goes_from_the_request_to_the_job(
    client: Outbox, sent: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentry, "wall_clock", lambda: time.time() + 3_600)  # of a worker whose clock is wrong
    with sentry_sdk.start_transaction(op="http.server", name="POST /orders"):
        job_id = await client.dispatch(Fine())
    await work(client)
    request, process = sent.items("transaction")
    (publish,) = request["spans"]
    assert (publish["op"], publish["description"]) == ("queue.publish", "mail")
    assert publish["data"]["messaging.message.id"] == str(job_id)
    assert process["transaction"] == Fine.name
    trace = process["contexts"]["trace"]
    assert trace["op"] == "queue.process"
    assert trace["trace_id"] == request["contexts"]["trace"]["trace_id"]
    assert trace["parent_span_id"] == publish["span_id"]
    data = trace["data"]
    assert (data["messaging.message.id"], data["messaging.destination.name"]) == (str(job_id), "mail")
    assert data["messaging.message.retry.count"] == 0
    assert 0 <= data["messaging.message.receive.latency"] < 30_000
    assert sent.items("event") == []


async def test_the_trace_is_in_the_headers(client: Outbox, migrated_url: str) -> None:
    with sentry_sdk.start_transaction(op="http.server", name="POST /orders"):
        await client.dispatch(Fine())
    driver = DatabaseDriver(migrated_url)
    (job,) = await driver.jobs.list_jobs()
    await driver.close()
    assert (Headers.load(job.headers).trace or {}).keys() == {"sentry-trace", "baggage"}


async def test_a_job_is_reported_once_after_its_last_attempt(client: Outbox, sent: Captured) -> None:
    await client.dispatch(Fine())
    job_id = await client.dispatch(Failing())
    await work(client)
    (event,) = sent.items("event")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "no such address: nowhere")
    assert error["stacktrace"]["frames"], "the exception itself, not its text"
    assert event["contexts"]["outbox"] == {"job": Failing.name, "job_id": str(job_id), "attempt": 2}
    assert event["tags"] == {"outbox.queue": "mail", "attempt": 2}
    assert not (event.get("breadcrumbs") or {}).get("values"), "those of other jobs are not its own"
    traces = [each["contexts"]["trace"]["trace_id"] for each in sent.items("transaction")]
    assert len(traces) == 3
    assert len(set(traces)) == 2, "both jobs were dispatched in one trace; the retry starts its own"


@pytest.mark.parametrize(
    ("job", "kind", "value"),
    [
        (Decides(), "LookupError", "it is of no use"),
        (TooSlow(), "outbox.errors.JobTimeout", "took longer than its timeout of 0.1 s"),
    ],
)
async def test_a_failure_without_an_exception_of_the_handler_is_reported_by_its_text(
    client: Outbox, sent: Captured, job: Job, kind: str, value: str
) -> None:
    await client.dispatch(job)
    await work(client)
    (event,) = sent.items("event")
    (error,) = event["exception"]["values"]
    assert error["type"] == kind
    assert value in error["value"]


async def test_nothing_of_an_encrypted_job_is_told(client: Outbox, sent: Captured) -> None:
    await client.dispatch(Failing(address="ada@example.org"), encrypt=True, max_tries=1)
    await work(client)
    (event,) = sent.items("event")
    (error,) = event["exception"]["values"]
    assert error.get("value") is None
    assert "ada@example.org" not in "".join(str(each.serialize()) for each in sent.envelopes)


async def test_each_attempt_ends_as_it_ended_where_listeners_are_late(client: Outbox, sent: Captured) -> None:
    all_ended = threading.Event()
    client.listen(lambda _: all_ended.wait(30), JobStarted)
    tick = Tick(schedule="Morning Report", at=datetime.now(UTC))
    driver = DatabaseDriver(client.settings.database_url)
    await driver.jobs.insert([with_headers(serialize(Failing()), tick=tick)])
    await driver.close()
    async with client.worker(queue="mail", stop_when_empty=True, sleep=0.02) as worker:
        await worker.wait()
    all_ended.set()
    await client.close()
    assert [each["status"] for each in sent.items("check_in")] == ["in_progress", "in_progress", "error"]
    (event,) = sent.items("event")
    assert event["tags"] == {"outbox.queue": "mail", "attempt": 2}


@pytest.mark.parametrize(("job", "status"), [(Fine(), "ok"), (Failing(), "error")])
async def test_ticks_check_in(
    client: Outbox, sent: Captured, monkeypatch: pytest.MonkeyPatch, job: Job, status: str
) -> None:
    definition = check_definition("0 7 * * mon-fri", None, "Europe/Berlin", "once", 3600, "allow", 0)
    monkeypatch.setattr(sentry, "declarations", lambda: [Declaration("Morning Report", type(job), definition)])
    driver = DatabaseDriver(client.settings.database_url)
    tick = Tick(schedule="Morning Report", at=datetime.now(UTC))
    await driver.jobs.insert([with_headers(serialize(job), tick=tick)])
    await driver.close()
    await work(client)
    *begun, ended = sent.items("check_in")
    assert {each["status"] for each in begun} == {"in_progress"}
    assert len(begun) == (job.max_tries or 1), "one for each attempt, of the same check-in"
    assert ended["status"] == status
    assert {(each["monitor_slug"], each["check_in_id"]) for each in (*begun, ended)} == {
        ("morning-report", ended["check_in_id"])
    }
    assert begun[0]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "0 7 * * mon-fri"},
        "timezone": "Europe/Berlin",
    }
    assert ended["duration"] >= 0
