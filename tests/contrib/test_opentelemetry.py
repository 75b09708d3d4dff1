"""Traces and metrics of `outbox.contrib.opentelemetry`, as the SDK exports them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import outbox
from outbox import Job, Outbox, Settings
from outbox.contrib import opentelemetry
from outbox.contrib.opentelemetry import tracing
from outbox.drivers.database import DatabaseDriver
from outbox.envelope import Headers
from outbox.events import LeaseLost

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


class Traced(Job):
    queue = "mail"
    number: int = 0
    seen: ClassVar[list[int]] = []

    async def handle(self) -> None:
        self.seen.append(trace.get_current_span().get_span_context().span_id)


class TracedInAThread(Job):
    queue = "mail"

    def handle(self) -> None:
        Traced.seen.append(trace.get_current_span().get_span_context().span_id)


class Failing(Job):
    queue = "mail"
    max_tries = 2
    backoff = 0

    async def handle(self) -> None:
        raise ValueError("no such address")


class Slow(Job):
    queue = "mail"
    max_tries = 1
    timeout = 0.1

    async def handle(self) -> None:
        await asyncio.sleep(60)


class Telemetry:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def span(self, name: str, **attributes: Any) -> ReadableSpan:
        (span,) = self.spans(name, **attributes)
        return span

    def spans(self, name: str, **attributes: Any) -> list[ReadableSpan]:
        """Those of this name, in the order in which they ended. Dots of attributes are written as underscores."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [
            span
            for span in self.exporter.get_finished_spans()
            if span.name == name and wanted.items() <= dict(span.attributes or {}).items()
        ]

    def points(self, name: str) -> Sequence[Any]:
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [point for metric in found for point in metric.data.data_points]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    Traced.seen.clear()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


@pytest.fixture
def backend() -> str:
    """What is traced does not depend on the database."""
    return "sqlite"


@pytest.fixture
async def client(migrated_url: str, telemetry: Telemetry) -> AsyncIterator[Outbox]:
    async with Outbox(Settings(database_url=migrated_url, encryption_keys=(KEY,))) as client:
        opentelemetry.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters, client=client)
        opentelemetry.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters, client=client)
        yield client


async def work(client: Outbox) -> None:
    async with client.worker(queue="mail", stop_when_empty=True, sleep=0.02) as worker:
        await worker.wait()


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


@pytest.mark.parametrize("kind", [Traced, TracedInAThread])
async def test_one_trace_goes_from_the_request_to_the_job(
    client: Outbox, telemetry: Telemetry, kind: type[Job]
) -> None:
    with telemetry.tracers.get_tracer("shop").start_as_current_span("request"):
        job_id = await client.dispatch(kind())
    await work(client)
    request, dispatch, process = (telemetry.span(name) for name in ("request", "dispatch mail", "process mail"))
    assert (dispatch.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert {ids(span)[0] for span in (request, dispatch, process)} == {ids(request)[0]}
    assert dispatch.parent is not None
    assert dispatch.parent.span_id == ids(request)[1]
    assert process.parent is not None
    assert process.parent.span_id == ids(dispatch)[1]
    assert links(process) == [ids(dispatch)], "always, so that both can be found from the other"
    assert Traced.seen == [ids(process)[1]], "what the handler does is part of its span"
    assert dict(process.attributes or {}) == {
        "messaging.system": "outbox",
        "messaging.destination.name": "mail",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(job_id),
        "outbox.connection": "database",
        "outbox.job.name": kind.name,
        "outbox.job.attempt": 1,
    }
    assert dispatch.attributes is not None
    assert dispatch.attributes["messaging.operation.type"] == "send"
    assert dispatch.attributes["messaging.message.id"] == str(job_id)


async def test_the_context_is_written_with_the_job_in_its_transaction(
    client: Outbox, telemetry: Telemetry, migrated_url: str
) -> None:
    engine = create_async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        await client.dispatch_many([Traced(number=1), Traced(number=2)], session=session)
    await engine.dispose()
    driver = DatabaseDriver(migrated_url)
    stored = [Headers.load(job.headers).trace or {} for job in await driver.jobs.list_jobs()]
    await driver.close()
    dispatch = telemetry.span("dispatch mail", messaging__batch__message_count=2)
    trace_id, span_id = ids(dispatch)
    assert [trace["traceparent"].rpartition("-")[0] for trace in stored] == [f"00-{trace_id:032x}-{span_id:016x}"] * 2


async def test_a_retry_starts_a_trace_of_its_own_and_links_to_the_dispatch(
    client: Outbox, telemetry: Telemetry
) -> None:
    await client.dispatch(Failing())
    await work(client)
    dispatch = telemetry.span("dispatch mail")
    first = telemetry.span("process mail", outbox__job__attempt=1)
    second = telemetry.span("process mail", outbox__job__attempt=2)
    assert ids(first)[0] == ids(dispatch)[0] != ids(second)[0]
    assert second.parent is None
    assert links(first) == links(second) == [ids(dispatch)]
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes is not None
    assert first.attributes["error.type"] == "ValueError"
    assert [event.name for event in first.events] == ["exception"]


async def test_an_old_job_starts_a_trace_of_its_own(
    client: Outbox, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "CHILD_WITHIN", -1.0)
    await client.dispatch(Traced())
    await work(client)
    process = telemetry.span("process mail")
    assert process.parent is None
    assert links(process) == [ids(telemetry.span("dispatch mail"))]


async def test_members_of_a_batch_start_traces_of_their_own(client: Outbox, telemetry: Telemetry) -> None:
    with client.use():
        await outbox.dispatch_batch([Traced(number=1), Traced(number=2)], name="prices")
    await work(client)
    dispatch = telemetry.span("dispatch mail", messaging__batch__message_count=2)
    spans = telemetry.spans("process mail")
    assert [links(span) for span in spans] == [[ids(dispatch)]] * 2
    assert len({ids(span)[0] for span in (dispatch, *spans)}) == 3


async def test_a_chain_stays_in_the_trace_of_its_dispatch(client: Outbox, telemetry: Telemetry) -> None:
    await client.dispatch_chain([Traced(number=1), Traced(number=2)])
    await work(client)
    dispatch = telemetry.span("dispatch mail")
    spans = telemetry.spans("process mail")
    assert [links(span) for span in spans] == [[ids(dispatch)]] * 2
    assert {ids(span)[0] for span in spans} == {ids(dispatch)[0]}


async def test_nothing_of_what_an_encrypted_job_raised_is_told(client: Outbox, telemetry: Telemetry) -> None:
    await client.dispatch(Failing(), encrypt=True, max_tries=1)
    await work(client)
    process = telemetry.span("process mail")
    assert process.status.status_code is StatusCode.ERROR
    assert "no such address" not in process.to_json()


async def test_a_timeout_is_an_error_of_the_span(client: Outbox, telemetry: Telemetry) -> None:
    await client.dispatch(Slow())
    await work(client)
    process = telemetry.span("process mail")
    assert process.status.status_code is StatusCode.ERROR
    assert process.attributes is not None
    assert process.attributes["error.type"] == "asyncio.exceptions.CancelledError"


async def test_a_job_that_carries_no_context_is_traced(client: Outbox, telemetry: Telemetry, migrated_url: str) -> None:
    async with Outbox(Settings(database_url=migrated_url)) as other:
        await other.dispatch(Traced())
    await work(client)
    process = telemetry.span("process mail")
    assert (process.parent, links(process)) == (None, [])


async def test_a_dispatch_that_fails_is_an_error_of_its_span(telemetry: Telemetry) -> None:
    async with Outbox(Settings(database_url="sqlite+aiosqlite:////no/such/directory/outbox.db")) as client:
        opentelemetry.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters, client=client)
        with pytest.raises(outbox.OutboxError):
            await client.dispatch(Traced())
    dispatch = telemetry.span("dispatch mail")
    assert dispatch.status.status_code is StatusCode.ERROR


async def test_the_metrics_of_the_conventions_and_of_queues(
    client: Outbox, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "wall_clock", lambda: time.time() + 3_600)  # of a worker whose clock is wrong
    await client.dispatch_many([Traced(), Traced(), Failing()])
    await client.dispatch(Traced(), delay=60)
    async with client.worker(queue="mail", sleep=0.02) as worker:
        async with asyncio.timeout(60):
            while len(telemetry.spans("process mail")) < 4:
                await asyncio.sleep(0.02)
        worker.events.emit(LeaseLost(UUID(int=7), Traced.name, "mail", "database", 1, "frozen"))  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            while not (lost := telemetry.points("outbox.lease.lost")):
                await asyncio.sleep(0.02)
    assert [point.value for point in lost] == [1]
    assert sum(point.value for point in telemetry.points("messaging.client.sent.messages")) == 4
    assert sum(point.count for point in telemetry.points("messaging.client.operation.duration")) == 2
    consumed = telemetry.points("messaging.client.consumed.messages")
    assert {point.attributes.get("error.type"): point.value for point in consumed} == {None: 2, "ValueError": 2}
    assert sum(point.count for point in telemetry.points("messaging.process.duration")) == 4
    assert sum(point.count for point in telemetry.points("outbox.job.wait")) == 3, "of first attempts"
    assert 0 < sum(point.sum for point in telemetry.points("outbox.job.wait")) < 60, "by the clock of the store"
    depth = {point.attributes["outbox.job.state"]: point.value for point in telemetry.points("outbox.queue.depth")}
    assert depth["delayed"] == 1
    assert [point.value for point in telemetry.points("outbox.queue.oldest")] == [0.0]
    named = {key for point in (*consumed, *telemetry.points("outbox.queue.depth")) for key in point.attributes}
    assert named == {
        "messaging.system",
        "messaging.destination.name",
        "messaging.operation.name",
        "messaging.operation.type",
        "outbox.connection",
        "outbox.job.state",
        "error.type",
    }


async def test_without_instruments_headers_stay_empty(migrated_url: str) -> None:
    async with Outbox(Settings(database_url=migrated_url)) as client:
        await client.dispatch(Traced())
        (job,) = (await outbox.jobs()).jobs
    assert job.headers == "{}"
