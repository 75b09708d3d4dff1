"""The handler stack: what surrounds ``handle`` of a job, built once per job class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from outbox import registry
from outbox.client_state import current_client
from outbox.errors import ConfigurationError, JobError, MissingResource
from outbox.events import Events
from outbox.handler_parameters import takes_session
from outbox.job import Job
from outbox.middleware import (
    application,
    cancellation,
    context,
    deadlines,
    expiry,
    instrumentation,
    resources,
    started,
    thread_call,
    timeouts,
    transaction,
)
from outbox.middleware.job_sessions import JobSessions
from outbox.middleware.results import Handler
from outbox.resources import Resources

if TYPE_CHECKING:
    from outbox.job import Middleware
    from outbox.runtime.execution.attempt import Attempt
    from outbox.runtime.execution.retry_policy import RetryPolicy


class HandlerStack:
    """Builds and keeps the chain of links of each job class."""

    def __init__(
        self,
        default: RetryPolicy,
        threads: thread_call.Threads,
        events: Events,
        sessions: JobSessions,
        *,
        middleware: Sequence[Middleware],
        provided: Resources,
        close: resources.Close,
        cancel_steps: Sequence[float],
        give_up: Callable[[Attempt], None],
        times: deadlines.JobTimes,
    ) -> None:
        self._default = default
        self._threads = threads
        self._events = events
        self._sessions = sessions
        self._middleware = middleware
        self._instruments = current_client().instruments
        self._provided = provided
        self._close = close
        self._cancel_steps = cancel_steps
        self._give_up = give_up
        self._check_deadlines = partial(deadlines.check, times=times, events=events)
        self._timeouts = timeouts.Timeouts()
        self._chains: dict[type[Job], Handler] = {}

    def of(self, name: str) -> Handler:
        """The chain for jobs that were stored under ``name``. For an unknown name, it raises `UnknownJob`."""
        try:
            kind = registry.resolve(name)
        except JobError as error:
            return expiry.link(context.refusing(error))
        chain = self._chains.get(kind)
        if chain is None:
            try:
                chain = self._chains[kind] = self._build(kind)
            except MissingResource as error:
                return expiry.link(context.refusing(error))
            except ConfigurationError as error:
                return expiry.link(context.refusing(MissingResource(str(error))))
        return chain

    def _build(self, kind: type[Job]) -> Handler:
        """Read from the bottom: the last line is the outermost link."""
        if takes_session(kind):
            chain = transaction.handler(kind, self._threads, self._sessions)
        else:
            chain = thread_call.handler(kind, self._threads)
        chain = resources.link(chain, kind, self._provided, self._close)
        chain = application.link(chain, (*self._middleware, *kind.middleware), events=self._events)
        chain = instrumentation.link(chain, self._instruments)
        chain = timeouts.link(chain, self._timeouts)
        chain = started.link(chain, self._events)
        chain = cancellation.link(chain, self._cancel_steps, self._give_up)
        chain = context.link(chain, kind, self._default, self._sessions, self._check_deadlines)
        return expiry.link(chain)
