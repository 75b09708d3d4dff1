"""Dispatching without a session: the jobs are stored when it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from outbox.connections import is_relayed, is_relayed_to
from outbox.dispatch.observers import is_recorded, tell_listeners, traced
from outbox.dispatch.preparing import Serialized
from outbox.envelope import Envelope
from outbox.open_drivers import OpenDrivers
from outbox.relay.route import to_relay_row
from outbox.settings import DATABASE
from outbox.telling_workers import tell_workers

_Transactions = Iterable[tuple[str, Sequence[Envelope]]]
"""Each the name of a connection and what it is to store, all or nothing."""


def _of_each_connection(serialized: Serialized) -> _Transactions:
    settings = serialized.settings
    for name, envelopes in list(serialized.by_connection.items()):
        rows = envelopes
        gated = [envelope for envelope in envelopes if envelope.policies is not None]
        if gated and is_relayed(settings, name):
            yield DATABASE, [to_relay_row(envelope, name) for envelope in gated]
            rows = [envelope for envelope in envelopes if envelope.policies is None]
        yield name, rows


def _of_one_database(serialized: Serialized) -> _Transactions:
    settings = serialized.settings
    rows: list[Envelope] = []
    database = DATABASE
    for name, envelopes in serialized.by_connection.items():
        if is_relayed_to(settings, name):
            rows += [to_relay_row(envelope, name) for envelope in envelopes]
        else:
            database = name
            rows += envelopes
    yield database, rows


async def store_all(
    serialized: Serialized, transactions: Callable[[Serialized], _Transactions] = _of_each_connection
) -> None:
    """Store the jobs in ``transactions`` of their own, one for each connection unless told otherwise."""
    with traced(serialized, in_session=False):
        if not is_recorded(serialized, None):
            for connection, rows in transactions(serialized):
                await _insert(serialized, connection, rows)
        tell_listeners(serialized, in_session=False)


async def store_together(serialized: Serialized) -> None:
    """Store jobs that one database keeps, all or none. Those for Redis are relayed from there."""
    await store_all(serialized, _of_one_database)


async def _insert(serialized: Serialized, connection: str, rows: Sequence[Envelope]) -> None:
    if not rows:
        return
    driver = serialized.client.part(OpenDrivers).get(connection, serialized.settings)
    if serialized.unique and driver.policies is not None:
        met = await driver.policies.insert_unique(rows)
        serialized.meet(met)
        rows = [row for row in rows if row.id not in met]
    else:
        await driver.jobs.insert(rows)
    tell_workers(serialized.client, {row.queue for row in rows}, connection, serialized.settings)
