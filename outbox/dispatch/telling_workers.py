"""What follows the commit of dispatched jobs."""

from __future__ import annotations

from collections.abc import Collection

from outbox.client_state import ClientState
from outbox.relay.route import relayed_connection
from outbox.relay.thread import RelayThreads
from outbox.settings import DATABASE, Settings
from outbox.wakeups.announce import announce


def tell_workers(
    client: ClientState, queues: Collection[str], connection: str = DATABASE, settings: Settings | None = None
) -> None:
    """Jobs of these queues were committed to ``connection``. Never waits, never raises. ``settings`` are the client's
    where they are known; without them they are asked for."""
    ordinary: list[str] = []
    for queue in queues:
        relayed_to = relayed_connection(queue)
        if relayed_to is None:
            ordinary.append(queue)
        else:
            client.part(RelayThreads).wake(relayed_to)
    if ordinary:
        announce(client, ordinary, connection, settings)
