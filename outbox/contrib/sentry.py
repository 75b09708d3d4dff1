"""Sentry: errors of jobs that have failed for good, traces, and check-ins of schedules.

``pip install 'outbox-queue[sentry]'``.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import time as wall_clock  # under its own name: jobs replace `time.time` to test themselves
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.consts import OP, SPANDATA
from sentry_sdk.crons import MonitorStatus, capture_checkin
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.scope import use_isolation_scope
from sentry_sdk.tracing import TransactionSource

from outbox import clock
from outbox.client import Outbox
from outbox.client_state import current_client
from outbox.events import Event, JobEvent, JobSettled, LeaseLost
from outbox.ids import JobId, made_at
from outbox.instruments import Dispatched, Run
from outbox.listeners import listen
from outbox.schedule_declarations import declarations
from outbox.settlement import Outcome

if TYPE_CHECKING:
    from sentry_sdk.types import MonitorConfig

ORIGIN = "auto.queue.outbox"
_MOST = 10_000
"""Attempts whose errors wait for their settlement."""

_NO_SLUG = re.compile(r"[^a-z0-9_-]+")
_SLUG_LENGTH = 50
_CRON_FIELDS = 5
_ENDS = {Outcome.COMPLETED: MonitorStatus.OK, Outcome.CANCELLED: MonitorStatus.OK, Outcome.FAILED: MonitorStatus.ERROR}


def instrument(*, client: Outbox | None = None, monitor_schedules: bool = False) -> None:
    """Report to Sentry what happens to jobs of this process: call it after ``sentry_sdk.init``. In a worker process,
    call both in a module that ``OUTBOX_JOBS`` names.

    Without ``client``, it is about the default client, that of `outbox.dispatch`. ``monitor_schedules`` sends check-ins
    of the jobs of schedules. A second call for the same client changes nothing.
    """
    if client is not None:
        with client.use():
            instrument(monitor_schedules=monitor_schedules)
        return
    state = current_client()
    if any(isinstance(each, _Sentry) for each in state.instruments):
        return
    # What they log as errors is reported from here, with its exception.
    ignore_logger("outbox.jobs")
    ignore_logger("outbox.worker")
    sentry = _Sentry(monitor_schedules=monitor_schedules)
    state.instruments += (sentry,)
    listen(sentry.hear, JobSettled, LeaseLost)


@dataclass(slots=True)
class _Attempt:
    """An attempt that has not been settled yet."""

    scope: sentry_sdk.Scope
    begun: float
    error: BaseException | None = None
    monitor: str | None = None


class _Sentry:
    def __init__(self, *, monitor_schedules: bool) -> None:
        self._monitor_schedules = monitor_schedules
        self._lock = threading.Lock()
        self._attempts: dict[tuple[JobId, int], deque[_Attempt]] = {}
        """By job and number, the oldest first: the next attempt may run before a listener hears how one ended, and an
        attempt that was given back has its number again."""

    @contextmanager
    def dispatching(self, jobs: Dispatched) -> Iterator[Mapping[str, str]]:
        with sentry_sdk.start_span(op=OP.QUEUE_PUBLISH, name=jobs.queue, origin=ORIGIN) as span:
            span.set_data(SPANDATA.MESSAGING_SYSTEM, "outbox")
            span.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, jobs.queue)
            if len(jobs.job_ids) == 1:
                span.set_data(SPANDATA.MESSAGING_MESSAGE_ID, str(jobs.job_ids[0]))
            trace = {"sentry-trace": sentry_sdk.get_traceparent(), "baggage": sentry_sdk.get_baggage()}
            yield {name: value for name, value in trace.items() if value}

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        context = run.job.context
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            scope.set_tag("outbox.queue", run.queue)
            scope.set_context("outbox", _facts(run.job.name, context.job_id, context.attempt))
            attempt = _Attempt(scope, clock.now(), monitor=self._check_in(run))
            try:
                with _transaction(run):
                    yield
            except BaseException as error:
                if not run.headers.encrypted:
                    attempt.error = error
                raise
            finally:
                self._keep(context.job_id, context.attempt, attempt)

    def hear(self, event: Event) -> None:
        """In a thread of its own."""
        if not isinstance(event, JobEvent):
            return
        attempt = self._take(event.job_id, event.attempt)
        if not isinstance(event, JobSettled):
            return
        if event.outcome is Outcome.FAILED:
            _report(event, attempt)
        status = _ENDS.get(event.outcome)
        if attempt is not None and attempt.monitor is not None and status is not None:
            seconds = clock.now() - attempt.begun
            capture_checkin(attempt.monitor, event.job_id.hex, status, duration=seconds)

    def _keep(self, job_id: JobId, number: int, attempt: _Attempt) -> None:
        with self._lock:
            if len(self._attempts) >= _MOST:
                del self._attempts[next(iter(self._attempts))]
            self._attempts.setdefault((job_id, number), deque()).append(attempt)

    def _take(self, job_id: JobId, number: int) -> _Attempt | None:
        with self._lock:
            kept = self._attempts.get((job_id, number))
            if kept is None:
                return None
            if len(kept) == 1:
                del self._attempts[job_id, number]
            return kept.popleft()

    def _check_in(self, run: Run) -> str | None:
        """The slug of the monitor of a scheduled job, which begins."""
        tick = run.headers.tick
        if tick is None or not self._monitor_schedules:
            return None
        slug = _NO_SLUG.sub("-", tick.schedule.lower()).strip("-")[:_SLUG_LENGTH]
        job_id = run.job.context.job_id.hex
        capture_checkin(slug, job_id, MonitorStatus.IN_PROGRESS, monitor_config=_monitor_config(tick.schedule))
        return slug


@contextmanager
def _transaction(run: Run) -> Iterator[None]:
    """It continues the trace of the dispatch, unless another one starts."""
    context = run.job.context
    trace = dict(run.trace) if run.continues and context.attempt == 1 else {}
    transaction = sentry_sdk.continue_trace(
        trace, op=OP.QUEUE_PROCESS, name=run.job.name, source=TransactionSource.TASK, origin=ORIGIN
    )
    with sentry_sdk.start_transaction(transaction) as span:
        span.set_data(SPANDATA.MESSAGING_SYSTEM, "outbox")
        span.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, run.queue)
        span.set_data(SPANDATA.MESSAGING_MESSAGE_ID, str(context.job_id))
        span.set_data(SPANDATA.MESSAGING_MESSAGE_RETRY_COUNT, context.attempt - 1)
        waited = max(0.0, wall_clock() - made_at(context.job_id)) if run.waited is None else run.waited
        span.set_data(SPANDATA.MESSAGING_MESSAGE_RECEIVE_LATENCY, waited * 1000)
        yield


def _report(event: JobSettled, attempt: _Attempt | None) -> None:
    """With the exception if the handler raised one: a job may fail before it, by a timeout, or by its own decision. Of
    what an encrypted job raised, the type is all that is told."""
    if attempt is not None and isinstance(attempt.error, Exception):
        with use_isolation_scope(attempt.scope):
            sentry_sdk.capture_exception(attempt.error)
        return
    failure = event.failure
    value = None if failure is None or failure.encrypted else failure.message
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("outbox.queue", event.queue)
        scope.set_context("outbox", _facts(event.name, event.job_id, event.attempt))
        kind: dict[str, Any] = {"type": "unknown" if failure is None else failure.type, "value": value}
        sentry_sdk.capture_event({"level": "error", "exception": {"values": [kind]}, "transaction": event.name})


def _facts(name: str, job_id: JobId, attempt: int) -> dict[str, Any]:
    return {"job": name, "job_id": str(job_id), "attempt": attempt}


def _monitor_config(schedule: str) -> MonitorConfig | None:
    """From what this process declares, so that Sentry makes the monitor; of crontab lines only."""
    for declaration in declarations():
        definition = declaration.definition
        if declaration.name == schedule and len(definition.when.split()) == _CRON_FIELDS:
            return {"schedule": {"type": "crontab", "value": definition.when}, "timezone": definition.tz}
    return None
