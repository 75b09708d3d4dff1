"""Jobs on their way in."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.redis.keys import QUEUES, queue_keys
from outbox.drivers.redis.packing import pack_body, parts
from outbox.drivers.redis.scripting import Call, Script, command
from outbox.drivers.redis.store import Store
from outbox.envelope import Envelope

_INSERT = Script("insert", "holding")


async def insert(store: Store, envelopes: Sequence[Envelope]) -> None:
    """On one server one script stores all of them. On a cluster each queue has a script of its own, and an error means
    that the jobs of some queues may be stored: the ids make repeating it harmless."""
    if not envelopes:
        return
    by_queue: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_queue.setdefault(envelope.queue, []).append(envelope)
    if store.one_slot:
        await store.do(_insertion(by_queue, QUEUES))
        return
    # First the names: a job in a queue that nobody knows would be run, but not be found by an operator.
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
