"""Whether a connection answers. All services of a consumer share one, so that an outage is reported once."""

from __future__ import annotations

import random
import threading

from outbox import clock
from outbox.events import ConnectionDown, ConnectionUp, Events

CLAIM, LOOK, IS_EMPTY, SETTLE, RENEW, HEARTBEAT = "claim", "look", "is empty", "settle", "renew", "heartbeat"
"""What is asked of a store. One that refuses one of them may carry out the others."""

_IMPLIES = {CLAIM: {LOOK}}
"""What else may not be asked again for a long time when one of them was carried out. It counts as carried out as well
where both had failed, or where it has failed long ago. A proxy may send looks to a replica that is away, and claims to
the primary."""

_LONG_AGO = 10.0
"""Seconds. A worker that looks at all has looked again by then, unless its --sleep is longer."""


class Availability:
    """Turns the failures and successes of single calls into one `ConnectionDown` and one `ConnectionUp` per outage.

    Thread-safe: leases are renewed from a thread of their own. A call tells when it began, because one that began
    before the last change says nothing about the time after it: a connect that times out after the server came back
    is not a second outage. An outage is over when every request that failed in it has been carried out again: a store
    that can be read may still refuse to be written.
    """

    def __init__(self, connection: str, events: Events) -> None:
        self._connection = connection
        self._events = events
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._changed = float("-inf")
        self._failing: set[str] = set()
        """Requests that have failed in this outage, and were not carried out since."""
        self._answered: dict[str, float] = {}
        self._failed: dict[str, float] = {}

    @property
    def down(self) -> bool:
        return self._down_since is not None

    def failed(self, begun: float, error: BaseException, request: str = "") -> None:
        """A ``request`` that began at ``begun`` could not reach the store, or was refused."""
        with self._lock:
            self._failed[request] = begun
            if begun < self._changed:
                return
            self._failing.add(request)
            if self._down_since is None:
                self._down_since = self._changed = clock.now()
                self._events.emit(ConnectionDown(self._connection, str(error)))

    def succeeded(self, begun: float, request: str = "") -> None:
        """A ``request`` that began at ``begun`` was carried out."""
        self._answered[request] = begun
        if self._down_since is None:
            return
        with self._lock:
            if self._down_since is None or begun < self._changed:
                return
            self._failing -= {request, *self._implied(begun, request)}
            if not self._failing:
                now = clock.now()
                self._events.emit(ConnectionUp(self._connection, now - self._down_since))
                self._down_since, self._changed = None, now

    def last_went_well(self, *requests: str) -> bool | None:
        """Whether the last of these requests to begin was carried out; None before there was one."""
        good = max((self._answered[each] for each in requests if each in self._answered), default=None)
        bad = max((self._failed[each] for each in requests if each in self._failed), default=None)
        if good is None or bad is None:
            return None if good is bad else bad is None
        return good > bad

    def unneeded(self, request: str) -> None:
        """There is nothing to ask for with this ``request`` any more: the outage may end without it. It ends with the
        next request that is carried out, because this says nothing about the store."""
        if request in self._failing:
            with self._lock:
                self._failing -= {request, *_IMPLIES.get(request, ())}

    def _implied(self, begun: float, request: str) -> set[str]:
        others = _IMPLIES.get(request, set())
        if request in self._failing:
            return others
        return {other for other in others & self._failing if begun - self._failed[other] >= _LONG_AGO}

    def answers_others(self, since: float, request: str) -> bool:
        """Whether the store has carried out another request that began after ``since``."""
        return any(begun > since for other, begun in list(self._answered.items()) if other != request)


class ReconnectBackoff:
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
