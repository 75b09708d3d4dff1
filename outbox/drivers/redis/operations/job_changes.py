"""When and how urgently a waiting job runs: an operator changes it in one script. Its queue stays."""

from __future__ import annotations

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.keys import queue_keys
from outbox.drivers.redis.script import Script
from outbox.drivers.values import JobChange
from outbox.errors import JobNotWaiting
from outbox.ids import JobId

_CHANGE = Script("change", returns=bytes)
_MICROSECONDS = 1_000_000


async def change(store: Store, job_id: JobId, wanted: JobChange) -> str | None:
    """`JobInspection.change`: the queues are in slots of their own, and no script reaches two of them.

    Raises:
        JobNotWaiting: a worker holds the job, or it is to get another queue.
    """
    if wanted.queue is not None:
        raise JobNotWaiting("a job in Redis keeps its queue: dispatch a copy to the other queue, and cancel this one")
    queues = await store.queues()
    priority = "" if wanted.priority is None else str(wanted.priority)
    calls = [_CHANGE(queue_keys(queue), job_id.bytes, priority, _due(wanted)) for queue in queues]
    for queue, answer in zip(queues, await store.do_all(calls), strict=True):
        if answer == b"changed":
            return queue
        if answer == b"held":
            raise JobNotWaiting(
                f"the job {job_id} runs, or its worker has lost it and the next claim takes it: a job is changed while "
                "it waits"
            )
    return None


def _due(wanted: JobChange) -> str:
    """As `change.lua` takes it."""
    if wanted.at is not None:
        return f"@{int(wanted.at.timestamp() * _MICROSECONDS)}"
    return "" if wanted.delay is None else str(int(wanted.delay * _MICROSECONDS))
