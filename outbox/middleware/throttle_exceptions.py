"""A shipped middleware: a circuit breaker, which pauses a job class whose jobs raise too often."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from outbox import clock
from outbox.client_state import current_client
from outbox.drivers.base import Driver
from outbox.drivers.breakers import BreakerStore, BreakerTerms
from outbox.errors import ConfigurationError, OutboxError
from outbox.events import CircuitClosed, CircuitOpened, Event
from outbox.middleware.application import attempt_events
from outbox.open_drivers import driver_here
from outbox.wakeups.announce import announce

if TYPE_CHECKING:
    from outbox.job import CallNext, Middleware

_MOST, _DAY = 10_000, 86_400.0
_FRESH = 0.5
"""Seconds for which a class that was not paused is not looked up again: less than the shortest pause, so that a probe
always looks."""

_log = logging.getLogger("outbox.runtime")


def throttle_exceptions(
    max_exceptions: int = 10,
    within: float = 60.0,
    pause: float = 60.0,
    on: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> Middleware:
    """A middleware of jobs: a circuit breaker for the class that lists it, in the whole fleet. Its state is in the
    database.

    The class is paused for ``pause`` seconds (1 to a day) when its jobs have raised ``max_exceptions`` exceptions (1 to
    10,000). They count together ``within`` so many seconds of the first (more than 0, at most a day). After the pause
    one job runs, the probe. If it succeeds, the class goes on; if it raises, the class is paused again. ``on`` are the
    exceptions that count.

    Raises:
        ConfigurationError: an argument is of a wrong type or out of its range.
    """
    if isinstance(max_exceptions, bool) or not isinstance(max_exceptions, int) or not 1 <= max_exceptions <= _MOST:
        raise ConfigurationError(f"max_exceptions is a whole number from 1 to {_MOST:,}, not {max_exceptions!r}")
    if not _is_number(within) or not 0 < within <= _DAY:
        raise ConfigurationError(f"within is a number of seconds, more than 0, at most a day, not {within!r}")
    if not _is_number(pause) or not 1 <= pause <= _DAY:
        raise ConfigurationError(f"a pause is a number of seconds from 1 to a day, not {pause!r}")
    kinds = on if isinstance(on, tuple) else (on,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise ConfigurationError(f"on takes classes of exceptions, not {on!r}")
    return _Throttle(BreakerTerms(max_exceptions, float(within), float(pause)), kinds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Throttle:
    def __init__(self, terms: BreakerTerms, on: tuple[type[Exception], ...]) -> None:
        self._terms = terms
        self._on = on
        self._open: dict[tuple[str, str], float] = {}
        """When a class of a connection was last seen unpaused."""

    async def __call__(self, job: Any, call_next: CallNext) -> Any:
        try:
            driver: Driver | None = driver_here(job.context.connection)
        except ConfigurationError as error:
            # In tests of an application there may be no database.
            _log.warning("the circuit breaker of %s has no state: %s", job.name, error)
            driver = None
        breakers = None if driver is None else driver.breakers
        if driver is not None and breakers is None:
            raise ConfigurationError(
                f"throttle_exceptions keeps its state in a database, and {job.name} runs on the connection "
                f"{driver.name}, which is none: leave the middleware out, or dispatch the job to a database"
            )
        try:
            result = await call_next(job)
        except self._on as error:
            if breakers is not None:
                await self._failed(breakers, job, error)
            raise
        if breakers is not None:
            await self._succeeded(breakers, job)
        return result

    async def _failed(self, breakers: BreakerStore, job: Any, error: Exception) -> None:
        kind = type(error).__name__
        try:
            opened = await breakers.failed(job.name, job.context.job_id, self._terms, kind)
        except OutboxError as problem:
            _log.warning("an exception of %s is not counted: %s", job.name, problem)
            return
        if opened:
            _tell(CircuitOpened(job.context.connection, job.name, kind, self._terms.pause))

    async def _succeeded(self, breakers: BreakerStore, job: Any) -> None:
        connection, name = job.context.connection, job.name
        seen = self._open.get((connection, name))
        if seen is not None and clock.now() - seen < _FRESH:
            return
        try:
            begun = clock.now()
            if not await breakers.is_paused(name):
                self._open[connection, name] = begun
                return
            tell_idle = partial(announce, current_client(), connection=connection)
            closed = await breakers.succeeded(name, job.context.job_id, tell_idle)
        except OutboxError as problem:
            _log.warning("whether the circuit breaker of %s is open is not known: %s", name, problem)
            return
        if closed:
            _tell(CircuitClosed(connection, name))


def _tell(event: Event) -> None:
    events = attempt_events.get()
    if events is not None:
        events.emit(event)
