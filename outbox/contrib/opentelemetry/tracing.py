"""Spans of dispatches and attempts, and the context between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import time as wall_clock  # under its own name: jobs replace `time.time` to test themselves

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from outbox import clock
from outbox.contrib.opentelemetry.metrics import Metrics
from outbox.ids import made_at
from outbox.instruments import Dispatched, Run

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
CHILD_WITHIN = 300.0
"""Seconds from the dispatch within which a first attempt belongs to the trace of its dispatch."""


class Tracing:
    """A ``dispatch`` span for each queue of a dispatch, a ``process`` span for each attempt."""

    def __init__(self, provider: TracerProvider | None, metrics: Metrics) -> None:
        self._tracer = trace.get_tracer("outbox", tracer_provider=provider, schema_url=SCHEMA)
        self._metrics = metrics

    @contextmanager
    def dispatching(self, jobs: Dispatched) -> Iterator[Mapping[str, str]]:
        labels = _labels(jobs.queue, jobs.connection, "dispatch", "send")
        attributes: dict[str, AttributeValue] = dict(labels)
        if len(jobs.job_ids) == 1:
            attributes |= {"messaging.message.id": str(jobs.job_ids[0]), "outbox.job.name": jobs.names[0]}
        else:
            attributes["messaging.batch.message_count"] = len(jobs.job_ids)
        begun = clock.now()
        name = f"dispatch {jobs.queue}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            carrier: dict[str, str] = {}
            inject(carrier)
            try:
                yield carrier
            except BaseException as error:
                labels["error.type"] = _failed(span, error)
                raise
            finally:
                self._metrics.dispatched(len(jobs.job_ids), clock.now() - begun, labels)

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        context = run.job.context
        labels = _labels(run.queue, run.connection, "process", "process")
        attributes: dict[str, AttributeValue] = {
            **labels,
            "messaging.message.id": str(context.job_id),
            "outbox.job.name": run.job.name,
            "outbox.job.attempt": context.attempt,
        }
        parent = extract(run.trace, context=Context())
        origin = trace.get_current_span(parent).get_span_context()
        age = max(0.0, wall_clock() - made_at(context.job_id))
        if context.attempt == 1:
            self._metrics.waited(age if run.waited is None else run.waited, labels)
        child = run.continues and context.attempt == 1 and age <= CHILD_WITHIN
        begun = clock.now()
        with self._tracer.start_as_current_span(
            f"process {run.queue}",
            context=parent if child else Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(origin)] if origin.is_valid else [],
            record_exception=not run.headers.encrypted,
            set_status_on_exception=not run.headers.encrypted,
        ) as span:
            try:
                yield
            except BaseException as error:
                labels["error.type"] = _failed(span, error, encrypted=bool(run.headers.encrypted))
                raise
            finally:
                self._metrics.processed(clock.now() - begun, labels)


def _labels(queue: str, connection: str, name: str, kind: str) -> dict[str, str]:
    return {
        "messaging.system": "outbox",
        "messaging.destination.name": queue,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "outbox.connection": connection,
    }


def _failed(span: Span, error: BaseException, *, encrypted: bool = False) -> str:
    """Returns what it is, as conventions name it. The span itself records what leaves it, but for exceptions that are
    none of `Exception`. Of those of ``encrypted`` jobs, nothing but the type is told."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    span.set_attribute("error.type", name)
    if encrypted or not isinstance(error, Exception):
        span.set_status(Status(StatusCode.ERROR, name))
    return name
