"""Storing jobs."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import batches, pack_body, parts
from outbox.drivers.redis.keys import QUEUES, queue_keys
from outbox.drivers.redis.script import Call, Script, command
from outbox.envelope import Envelope

_INSERT = Script("insert", "common/claims", returns=NoneType)
BYTES_PER_SCRIPT = 256_000_000
"""All that can be: a lot is stored as a whole or not at all."""


async def insert(store: Store, envelopes: Sequence[Envelope]) -> None:
    """On one server one script stores all of them, up to 256 MB. On a cluster each queue has a script of its own.
    Where there are several scripts, an error means that some jobs may be stored: the ids make repeating it harmless."""
    for batch in batches(envelopes, BYTES_PER_SCRIPT):
        await _insert(store, batch)


async def _insert(store: Store, envelopes: Sequence[Envelope]) -> None:
    by_queue: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_queue.setdefault(envelope.queue, []).append(envelope)
    if store.one_slot:
        await store.do(_insertion(by_queue, QUEUES))
        return
    # The names first: an operator could not find a job in an unknown queue.
    await store.do(command("SADD", QUEUES, *by_queue))
    await store.do_all([_insertion({queue: jobs}) for queue, jobs in by_queue.items()])


def _insertion(by_queue: dict[str, list[Envelope]], *registry: str) -> Call:
    keys = [key for queue in by_queue for key in queue_keys(queue)]
    jobs = [
        (envelope, number, pack_body(envelope))
        for number, envelopes in enumerate(by_queue.values(), 1)
        for envelope in envelopes
    ]
    packed = [string for part in parts(jobs) for string in part]
    return _INSERT([*keys, *registry], ",".join(by_queue), *packed)
