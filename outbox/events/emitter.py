"""`Events`, which hands events to listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from outbox.events.base import Event

_log = logging.getLogger("outbox.events")

Listener = Callable[[Event], None]
BatchListener = Callable[[Sequence[Event]], None]


class Events:
    """Hands every event to every listener, in the order in which they were added. A listener that raises is reported
    and otherwise ignored: telemetry cannot fail a job.

    Most events come from the thread of the event loop, some from the one that renews leases.
    """

    def __init__(self) -> None:
        self._listeners: list[_Listening] = []
        self._by_kind: dict[type[Event], tuple[BatchListener, ...]] = {}

    def listen(self, listener: Listener, *kinds: type[Event]) -> None:
        """Call ``listener`` for events of these kinds; without any, for all."""

        def each(events: Sequence[Event]) -> None:
            for event in events:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - telemetry cannot fail a job
                    _log.exception("a listener failed on %s", type(event).__name__)

        self.listen_to_batches(each, *kinds)

    def listen_to_batches(
        self, listener: BatchListener, *kinds: type[Event], without: tuple[type[Event], ...] = ()
    ) -> None:
        """Call ``listener`` with events of one kind that happened together, where they cost it less than one by one.
        ``without`` are kinds that it does not want."""
        self._listeners.append(_Listening(listener, kinds or (Event,), without))
        self._by_kind = {}

    def wants(self, kind: type[Event]) -> bool:
        """Whether a listener wants ``kind``: for events that come once per job, and cost more than this question."""
        return bool(self._who(kind))

    def emit(self, event: Event) -> None:
        self.emit_all((event,))

    def emit_all(self, events: Sequence[Event]) -> None:
        """Events of one kind."""
        for listener in self._who(type(events[0])) if events else ():
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - telemetry cannot fail a job
                _log.exception("a listener failed on %s", type(events[0]).__name__)

    def emit_each(self, events: Sequence[Event]) -> None:
        """Events of several kinds."""
        for _, some in groupby(events, key=type):
            self.emit_all(tuple(some))

    def _who(self, kind: type[Event]) -> tuple[BatchListener, ...]:
        # A listener that another thread adds meanwhile makes this mapping one of the past.
        by_kind = self._by_kind
        known = by_kind.get(kind)
        if known is None:
            known = by_kind[kind] = tuple(each.listener for each in self._listeners if each.hears(kind))
        return known


class _Listening(NamedTuple):
    listener: BatchListener
    kinds: tuple[type[Event], ...]
    without: tuple[type[Event], ...]

    def hears(self, kind: type[Event]) -> bool:
        return issubclass(kind, self.kinds) and not issubclass(kind, self.without)
