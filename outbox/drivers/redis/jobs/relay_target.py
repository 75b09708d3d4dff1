"""Jobs relayed from a database. Each is stored once while its row exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import batches, pack_body, pack_jobs
from outbox.drivers.redis.keys import ENDED, OUTCOMES, QUEUES, key, queue_keys
from outbox.drivers.redis.script import Call, Script, command, signs
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import MoveRates, Outcome

_INSERT_ONCE = Script("insert_once", "common/claims", "common/relayed", returns=bytes)
_FORGET_ACCEPTED = Script("forget_accepted", "common/relayed", returns=NoneType)
_RELAYED = "relayed"
_BYTES_PER_SCRIPT = 8_000_000
_ENDED = "e"
_ENDED_AT_ONCE = 1_000


class RelayedJobs:
    """`RelayTarget`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_relayed_end: Callable[[], None] = lambda: None
        self.on_refused: Callable[[Sequence[MoveRates]], None] = lambda _: None

    async def insert_once(self, envelopes: Sequence[Envelope]) -> frozenset[JobId]:
        """Store jobs that were not stored before; return those that were and have ended.

        Large jobs are stored by several scripts. After an error, repeating the call is harmless.
        """
        ended: set[JobId] = set()
        for batch in batches(envelopes, _BYTES_PER_SCRIPT):
            ended |= await self._insert_once(batch)
        return frozenset(ended)

    async def _insert_once(self, envelopes: Sequence[Envelope]) -> set[JobId]:
        by_queue = _by_queue(envelopes)
        # The names first: an operator could not find a job in an unknown queue.
        await self._store.do(command("SADD", QUEUES, *by_queue))
        answers = await self._store.persist(lambda _: self._answers(by_queue))
        return {
            envelope.id
            for jobs, states in zip(by_queue.values(), answers, strict=True)
            for envelope, state in zip(jobs, states, strict=True)
            if state == _ENDED
        }

    async def _answers(self, by_queue: Mapping[str, Sequence[Envelope]]) -> list[str]:
        answers = await self._store.send_all([_insertion(queue, jobs) for queue, jobs in by_queue.items()])
        return [signs(answer, len(jobs)) for jobs, answer in zip(by_queue.values(), answers, strict=True)]

    async def take_ended(self) -> dict[JobId, str]:
        """Take the relayed jobs that have ended since the last call, with their queues."""
        queues = await self._store.queues()
        taken = await self._store.do_all([command("LPOP", key(queue, ENDED), _ENDED_AT_ONCE) for queue in queues])
        return {JobId(bytes=raw): queue for queue, ids in zip(queues, taken, strict=True) for raw in ids or ()}

    async def outcomes(self, queues: Mapping[JobId, str]) -> dict[JobId, Outcome]:
        """How those of these jobs have ended that had policies, and were not removed by an operator."""
        by_queue = _ids_by_queue(queues)
        calls = [
            command("HMGET", key(queue, OUTCOMES), *(job_id.bytes for job_id in ids)) for queue, ids in by_queue.items()
        ]
        answers = await self._store.do_all(calls)
        return {
            job_id: Outcome(outcome.decode())
            for ids, found in zip(by_queue.values(), answers, strict=True)
            for job_id, outcome in zip(ids, found, strict=True)
            if outcome is not None
        }

    async def forget_accepted(self, queues: Mapping[JobId, str]) -> None:
        """The rows of these jobs are gone. Redis forgets them ten minutes later, for relays that are late."""
        await self._store.do_all(
            [
                _FORGET_ACCEPTED(
                    [key(queue, _RELAYED), key(queue, OUTCOMES)], b"".join(job_id.bytes for job_id in job_ids)
                )
                for queue, job_ids in _ids_by_queue(queues).items()
            ]
        )


async def forget_relayed(store: Store, queues: Mapping[JobId, str]) -> None:
    """Forget at once that these jobs were here, and how they ended: they are about to be sent again."""
    for queue, ids in _ids_by_queue(queues).items():
        raw = [job_id.bytes for job_id in ids]
        notes = [command("LREM", key(queue, ENDED), 0, each) for each in raw]
        await store.do_all(
            [command("ZREM", key(queue, _RELAYED), *raw), command("HDEL", key(queue, OUTCOMES), *raw), *notes]
        )


def _ids_by_queue(queues: Mapping[JobId, str]) -> dict[str, list[JobId]]:
    by_queue: dict[str, list[JobId]] = {}
    for job_id, queue in queues.items():
        by_queue.setdefault(queue, []).append(job_id)
    return by_queue


def _by_queue(envelopes: Sequence[Envelope]) -> dict[str, list[Envelope]]:
    by_queue: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_queue.setdefault(envelope.queue, []).append(envelope)
    return by_queue


def _insertion(queue: str, jobs: Sequence[Envelope]) -> Call:
    packed = pack_jobs([(envelope, 1, pack_body(envelope)) for envelope in jobs])
    return _INSERT_ONCE([*queue_keys(queue), key(queue, _RELAYED)], packed.records, packed.bodies)
