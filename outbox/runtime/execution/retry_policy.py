"""How often, how long and after which pauses a job is tried: its headers go before its class, and its class before the
worker's options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from outbox.backoff import MAX_DELAY, Backoff
from outbox.envelope import NO_HEADERS, Headers
from outbox.job import Job
from outbox.options import WORKER_OPTIONS, BackoffOption, as_backoff, worker_options_of
from outbox.policies.attempt_limits import MOST_TRIES, limits_of
from outbox.settings import WorkerOptions

_log = logging.getLogger("outbox.runtime")

_ALL_LEFT_OPEN = (None,) * len(WORKER_OPTIONS)


class RetryPolicy(NamedTuple):
    """What a worker goes by: the options of `WORKER_OPTIONS`, in that order, and a fallback."""

    max_tries: int
    timeout: float
    """Seconds for one attempt; 0 for no limit."""
    backoff: BackoffOption | Callable[[Any, int], float]
    fallback: Backoff
    """For a ``backoff`` method of the job that raises, or returns no number of seconds."""

    @classmethod
    def default(cls, options: WorkerOptions) -> RetryPolicy:
        """For jobs that do not say."""
        values = dict(zip(WORKER_OPTIONS, worker_options_of(options), strict=True))
        values["backoff"] = values["fallback"] = Backoff(options.backoff)
        return cls(**values)

    def of(self, kind: type[Job], headers: Headers) -> RetryPolicy:
        """What ``kind`` and the headers of one dispatch say, with this policy for what they leave open."""
        of_class = worker_options_of(kind)
        if headers is NO_HEADERS and of_class == _ALL_LEFT_OPEN and kind.retry_until is None:
            return self
        values = [
            dispatched if dispatched is not None else of_kind if of_kind is not None else of_worker
            for dispatched, of_kind, of_worker in zip(worker_options_of(headers.options), of_class, self, strict=False)
        ]
        policy = RetryPolicy._make((*values, self.fallback))
        if headers.options.max_tries is None and kind.max_tries is None:
            # The worker's own number of tries is for jobs that name no time.
            limits = limits_of(kind, headers.options)
            if limits is not None and limits.retry_until is not None:
                return policy._replace(max_tries=MOST_TRIES)
        return policy

    def delay(self, job: Job, attempt: int) -> float:
        """Seconds until the attempt that follows number ``attempt``."""
        if not callable(self.backoff):
            return as_backoff(self.backoff).delay(attempt)
        try:
            return _checked(job.backoff(attempt))  # type: ignore[operator, misc]
        except BaseException:  # noqa: BLE001 - a SystemExit in application code must not end the worker
            _log.exception("%s.backoff(%d) failed; the worker's own backoff is used", job.name, attempt)
            return self.fallback.delay(attempt)


def _checked(seconds: Any) -> float:
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise ValueError(f"{seconds!r} is not a number of seconds from 0 to {MAX_DELAY:.0f}")
    return float(seconds)
