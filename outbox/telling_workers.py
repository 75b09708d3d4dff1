"""What follows a commit of this process: those hear of it who have to do with what it made claimable."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from outbox.client_state import ClientState
from outbox.drivers.base import Driver
from outbox.drivers.values import PolicyNews
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
            client.part(RelayThreads).wake(relayed_to, partial(_pass_on, client, DATABASE))
    if ordinary:
        announce(client, ordinary, connection, settings)


def pass_on_policy_news(client: ClientState, driver: Driver) -> None:
    """From now on, what policies report of the calls of ``driver`` reaches the listeners of ``client``, and the workers
    for the jobs that became claimable."""
    if driver.policies is not None:
        driver.policies.on_news = partial(_pass_on, client, driver.name)


def _pass_on(client: ClientState, connection: str, news: PolicyNews) -> None:
    if client.events is not None and news.events:
        client.events.emit_each(news.events)
    if news.queues:
        tell_workers(client, news.queues, connection)
