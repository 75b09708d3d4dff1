"""How often, how long and after which pauses a job is tried: its headers go before its class, and its class before the
worker's options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from outbox.backoff import MAX_DELAY, Backoff
from outbox.envelope import NO_HEADERS, Headers
from outbox.job import BackoffOption, Job, as_backoff
from outbox.settings import WorkerOptions

_log = logging.getLogger("outbox.runtime")

_T = TypeVar("_T")


class RetryPolicy(NamedTuple):
    max_tries: int
    timeout: float
    """Seconds for one attempt; 0 for no limit."""
    backoff: BackoffOption | Callable[[Any, int], float]
    fallback: Backoff
    """For a ``backoff`` method of the job that raises, or returns no number of seconds."""

    @classmethod
    def default(cls, options: WorkerOptions) -> RetryPolicy:
        """For jobs that do not say."""
        backoff = Backoff(options.backoff)
        return cls(options.max_tries, options.timeout, backoff, backoff)

    def of(self, kind: type[Job], headers: Headers) -> RetryPolicy:
        """What ``kind`` and the headers of one dispatch say, with this policy for what they leave open."""
        if headers is NO_HEADERS and kind.max_tries is None and kind.timeout is None and kind.backoff is None:
            return self
        return RetryPolicy(
            _first(headers.max_tries, kind.max_tries, self.max_tries),
            _first(headers.timeout, kind.timeout, self.timeout),
            _first(headers.backoff, kind.backoff, self.backoff),
            self.fallback,
        )

    def delay(self, job: Job, attempt: int) -> float:
        """Seconds until the attempt that follows number ``attempt``."""
        if not callable(self.backoff):
            return as_backoff(self.backoff).delay(attempt)
        try:
            return _checked(job.backoff(attempt))  # type: ignore[operator, misc]
        except BaseException:  # noqa: BLE001 - a SystemExit in application code must not end the worker
            _log.exception("%s.backoff(%d) failed; the worker's own backoff is used", job.name, attempt)
            return self.fallback.delay(attempt)


def _first(header: _T | None, of_class: _T | None, default: _T) -> _T:
    if header is not None:
        return header
    return default if of_class is None else of_class


def _checked(seconds: Any) -> float:
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise ValueError(f"{seconds!r} is not a number of seconds from 0 to {MAX_DELAY:.0f}")
    return float(seconds)
