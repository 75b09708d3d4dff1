"""Says in the log of an application which job wrote a line: a filter for `logging`, a processor for structlog.

Both are made before the worker starts, as is usual where logging is configured.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from outbox.client_state import current_client
from outbox.instruments import Dispatched, Run

FIELDS = ("job_id", "job", "queue", "attempt", "connection", "batch", "tenant", "trace_id")
"""What is known of a running job. ``tenant`` is its fair key, else its field ``tenant`` or ``tenant_id``; ``trace_id``
that of the current span of OpenTelemetry, else that of its dispatch. All but the attempt are texts."""

_TENANTS = ("tenant", "tenant_id")
_DETAILS = {"job_id": "job_id", "job": "name", "queue": "queue", "attempt": "attempt", "connection": "connection"}
"""Where the records of outbox itself have the fields."""

_running: ContextVar[Mapping[str, Any] | None] = ContextVar("outbox_running_job", default=None)

Processor = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]


def job_context() -> dict[str, Any]:
    """The fields of the job whose code runs, in its handler and in tasks and threads that it starts with its context.
    Those that it has not are left out; outside a job there are none."""
    fields = dict(_running.get() or {})
    if fields and (current := _current_trace()) is not None:
        fields["trace_id"] = current
    return fields


class JobContextFilter(logging.Filter):
    """Gives each record the attributes of `FIELDS`, None where there is no value. It lets every record pass.

    It belongs on handlers: filters of a logger do not see records of the loggers below it.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        _attach()

    def filter(self, record: logging.LogRecord) -> bool:
        details = getattr(record, "details", None)
        if isinstance(details, Mapping) and hasattr(record, "event"):
            fields = {field: details.get(key) for field, key in _DETAILS.items()}
        else:
            fields = job_context()
        for field in FIELDS:
            if not hasattr(record, field):
                setattr(record, field, fields.get(field))
        return True


def structlog_processor() -> Processor:
    """A processor that adds the fields of the running job to each event, unless it has them."""
    _attach()

    def add_job_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for field, value in job_context().items():
            event.setdefault(field, value)
        return event

    return add_job_context


class _LogContext:
    @contextmanager
    def dispatching(self, _: Dispatched) -> Iterator[Mapping[str, str]]:
        yield {}

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        token = _running.set(_fields(run))
        try:
            yield
        finally:
            _running.reset(token)


def _attach() -> None:
    client = current_client()
    if not any(isinstance(each, _LogContext) for each in client.instruments):
        client.instruments += (_LogContext(),)


def _fields(run: Run) -> dict[str, Any]:
    context, headers = run.job.context, run.headers
    found = {
        "job_id": str(context.job_id),
        "job": run.job.name,
        "queue": run.queue,
        "attempt": context.attempt,
        "connection": run.connection,
        "batch": None if headers.batch is None else str(headers.batch.id),
        "tenant": _tenant(run),
        "trace_id": _trace_of(run.trace),
    }
    return {field: value for field, value in found.items() if value is not None}


def _tenant(run: Run) -> str | None:
    keys = run.headers.keys
    if keys is not None and keys.fair is not None:
        # Of a key that is a field: ``customer:7``.
        return keys.fair.name.partition(":")[2] if keys.fair.scope else keys.fair.name
    if run.headers.encrypted:
        return None
    value = next((getattr(run.job, name) for name in _TENANTS if name in type(run.job).model_fields), None)
    return None if value is None else str(value)


def _trace_of(trace: Mapping[str, str]) -> str | None:
    """Of a ``traceparent``, as W3C Trace Context writes it: version, trace, span and flags."""
    parts = trace.get("traceparent", "").split("-")
    return parts[1] if len(parts) > 1 else None


def _current_trace() -> str | None:
    """Without an import: where an application has not loaded OpenTelemetry, there is no span."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    context = module.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
