"""Follow-ups on their way to the slot of another queue, on Redis Cluster.

The script that settles a job cannot write to another slot. It parks the follow-up in the slot of the job, in the same
step. The driver then stores it in its queue and removes the parked copy. After any failure, the follow-up is parked or
stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import moment, pack_body, text
from outbox.drivers.redis.jobs.insert import insert
from outbox.drivers.redis.keys import PARKED as _PARKED
from outbox.drivers.redis.keys import key
from outbox.drivers.redis.script import command
from outbox.envelope import Envelope
from outbox.errors import BackendUnavailable
from outbox.ids import JobId
from outbox.settlement import Settlement

PARKED = 0
"""Takes the place of the queue number."""


def pack(envelope: Envelope) -> bytes:
    """The script prepends two times: its availability and now."""
    return f"{envelope.queue}\n{envelope.priority}\n".encode() + pack_body(envelope)


def _unpack(job_id: bytes, raw: bytes) -> Envelope:
    available_at, _, queue, priority, name, headers, payload = text(raw).split("\n", 6)
    return Envelope(
        JobId(bytes=job_id), queue, name, int(priority), payload, headers, available_at=moment(available_at)
    )


class CrossSlotJobs:
    """Delivers parked follow-ups: those of this process at once, those of others when it has seen them twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[bytes] = set()

    async def deliver(self, places: Mapping[JobId, str], settled: Sequence[Settlement]) -> None:
        """Deliver the follow-ups of these settlements."""
        parked: dict[str, list[bytes]] = {}
        for settlement in settled:
            queue = places[settlement.fence.job_id]
            elsewhere = [envelope.id.bytes for envelope in settlement.inserted if envelope.queue != queue]
            if elsewhere:
                parked.setdefault(queue, []).extend(elsewhere)
        # They stay parked until a worker can reach the other slot.
        with suppress(BackendUnavailable):
            await self._move(parked)

    async def deliver_left(self) -> None:
        """Deliver the follow-ups of processes that ended before they did."""
        if self._store.one_slot:
            return
        queues = await self._store.queues()
        found = await self._store.do_all([command("HKEYS", key(queue, _PARKED)) for queue in queues])
        seen, self._seen = self._seen, {job_id for ids in found for job_id in ids}
        left = {queue: [job_id for job_id in ids if job_id in seen] for queue, ids in zip(queues, found, strict=True)}
        await self._move({queue: ids for queue, ids in left.items() if ids})

    async def _move(self, parked: Mapping[str, Sequence[bytes]]) -> None:
        """For all queues at once, in as many round trips as for one."""
        if not parked:
            return
        answers = await self._store.do_all([command("HMGET", key(queue, _PARKED), *parked[queue]) for queue in parked])
        there: dict[str, dict[bytes, bytes]] = {}
        for queue, values in zip(parked, answers, strict=True):
            present = {job_id: value for job_id, value in zip(parked[queue], values, strict=True) if value is not None}
            if present:
                there[queue] = present
        jobs = [_unpack(job_id, value) for values in there.values() for job_id, value in values.items()]
        if jobs:
            await insert(self._store, jobs)
            await self._store.do_all([command("HDEL", key(queue, _PARKED), *there[queue]) for queue in there])
