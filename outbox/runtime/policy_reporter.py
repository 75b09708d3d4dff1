"""Passes on what policies report: events to listeners, and jobs that became claimable to idle workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from outbox.client_state import current_client
from outbox.drivers.values import PolicyNews
from outbox.events import Events
from outbox.relay.route import relayed_connection
from outbox.wakeups.announce import announce


class PolicyReporter:
    """Called from any thread."""

    def __init__(self, events: Events, relays: Mapping[str, Callable[[], None]]) -> None:
        """``relays`` wake the relay to a connection."""
        self._client = current_client()
        self._events = events
        self._relays = relays

    def __call__(self, connection: str, news: PolicyNews) -> None:
        if news.events:
            self._events.emit_each(news.events)
        ordinary = []
        for queue in news.queues:
            target = relayed_connection(queue)
            if target is None:
                ordinary.append(queue)
            elif target in self._relays:
                self._relays[target]()
        if ordinary:
            announce(self._client, ordinary, connection)
