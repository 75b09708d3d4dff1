"""Whether a connection answers. All services of a lane share one, so that an outage is reported once."""

from __future__ import annotations

import random
import threading

from outbox import clock
from outbox.events import ConnectionDown, ConnectionUp, Events


class Availability:
    """Turns the failures and successes of single calls into one `ConnectionDown` and one `ConnectionUp` per outage.

    Thread-safe: leases are renewed from a thread of their own. A call tells when it began, because one that began
    before the last change says nothing about the time after it: a connect that times out after the server came back
    is not a second outage.
    """

    def __init__(self, connection: str, events: Events) -> None:
        self._connection = connection
        self._events = events
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._changed = float("-inf")

    @property
    def down(self) -> bool:
        return self._down_since is not None

    def failed(self, begun: float, error: BaseException) -> None:
        """A call that began at ``begun`` could not reach the store."""
        with self._lock:
            if self._down_since is None and begun >= self._changed:
                self._down_since = self._changed = clock.now()
                self._events.emit(ConnectionDown(self._connection, str(error)))

    def succeeded(self, begun: float) -> None:
        """A call that began at ``begun`` was answered."""
        if self._down_since is None:
            return
        with self._lock:
            if self._down_since is not None and begun >= self._changed:
                now = clock.now()
                self._events.emit(ConnectionUp(self._connection, now - self._down_since))
                self._down_since, self._changed = None, now


class Patience:
    """Seconds to wait between tries against a store that does not answer: doubling up to a limit, and jittered so that
    a fleet does not come back in step."""

    def __init__(self, first: float = 0.1, maximum: float = 5.0) -> None:
        self._first = min(first, maximum)
        self._maximum = maximum
        self._next = self._first

    def next(self) -> float:
        delay, self._next = self._next, min(self._next * 2, self._maximum)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        self._next = self._first
