"""Writes the ends of attempts, each with its effects."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import microseconds, pack_body, pack_jobs
from outbox.drivers.redis.jobs import cross_slot
from outbox.drivers.redis.jobs.job_locator import JobLocator
from outbox.drivers.redis.jobs.unconfirmed import Unconfirmed
from outbox.drivers.redis.keys import ENDED, OUTCOMES, QUEUES, key, queue_keys
from outbox.drivers.redis.script import Call, Script, signs
from outbox.drivers.values import Settled
from outbox.envelope import Envelope
from outbox.ids import JobId
from outbox.settlement import Failure, LeavePolicies, Outcome, Settlement, dump_failure

_SETTLE = Script("settle", returns=bytes)

_REMOVE, _FAIL, _PUT_BACK, _RETRY, _GIVE_BACK, _DEFER = b"C", b"F", b"P", b"R", b"S", b"D"
_KINDS = {
    Outcome.COMPLETED: _REMOVE,
    Outcome.CANCELLED: _REMOVE,
    Outcome.FAILED: _FAIL,
    Outcome.RETRIED: _RETRY,
    Outcome.RELEASED: _PUT_BACK,
    Outcome.SNOOZED: _GIVE_BACK,
    Outcome.DEFERRED: _DEFER,
}
_ENDS = {_REMOVE, _FAIL}
_WITH_POLICIES = {Outcome.COMPLETED: b"k", Outcome.FAILED: b"l", Outcome.CANCELLED: b"x"}
"""The kinds of ends of relayed jobs with policies, whose outcome the script notes as well."""
_OWNER = struct.Struct(">I")
_HEADERS = struct.Struct(">II")
_WRITTEN = "1"
# After a lost answer, a job that is gone, or was put back under this token, was most likely settled by the first try.
# If an operator has cancelled it meanwhile, accepting the settlement changes nothing in Redis.
_WRITTEN_BEFORE = str.maketrans("gb", "11")


async def settle(
    store: Store,
    locator: JobLocator,
    unconfirmed: Unconfirmed,
    cross_slot_jobs: cross_slot.CrossSlotJobs,
    connection: str,
    settlements: Sequence[Settlement],
) -> Settled:
    """One script for each queue, in one round trip. Each settlement is atomic, because one script writes it."""
    fences = [settlement.fence for settlement in settlements]
    places = await locator.of(fences)
    by_queue: dict[str, _Batch] = {}
    for settlement in settlements:
        queue = places.get(settlement.fence.job_id)
        if queue is not None:
            by_queue.setdefault(queue, _Batch(store, connection, queue, locator.relayed)).settlements.append(settlement)

    async def write(_: float | None) -> list[str]:
        answers = await store.send_all([batch.call() for batch in by_queue.values()])
        return [
            _reading(batch, signs(answer, len(batch.settlements)), unconfirmed)
            for batch, answer in zip(by_queue.values(), answers, strict=True)
        ]

    answers = await store.persist(write, lambda: unconfirmed.add_ends(fences))
    unconfirmed.end_answered(fences)
    locator.settled(fences)
    settled = _settled(settlements, by_queue.values(), answers)
    if not store.one_slot:
        await cross_slot_jobs.deliver(places, settled.accepted)
    return settled


def _reading(batch: _Batch, answer: str, unconfirmed: Unconfirmed) -> str:
    """The meaning of ``answer`` if an earlier try may have written some of the settlements."""
    if not unconfirmed.ends:
        return answer
    return "".join(
        sign.translate(_WRITTEN_BEFORE) if settlement.fence in unconfirmed.ends else sign
        for settlement, sign in zip(batch.settlements, answer, strict=True)
    )


def _settled(settlements: Sequence[Settlement], batches: Iterable[_Batch], answers: Sequence[str]) -> Settled:
    if sum(answer.count(_WRITTEN) for answer in answers) == len(settlements):
        return Settled(tuple(settlements), ())
    written = {
        id(settlement)
        for batch, answer in zip(batches, answers, strict=True)
        for settlement, sign in zip(batch.settlements, answer, strict=True)
        if sign == _WRITTEN
    }
    return Settled(
        tuple(settlement for settlement in settlements if id(settlement) in written),
        tuple(settlement for settlement in settlements if id(settlement) not in written),
    )


@dataclass(slots=True)
class _Batch:
    """The settlements of one queue, written by one script."""

    store: Store
    connection: str
    queue: str
    relayed: Collection[JobId]
    settlements: list[Settlement] = field(default_factory=list)

    def call(self) -> Call:
        records = bytearray()
        ended = outcomes = False
        extras: list[str | int] = []
        for settlement in self.settlements:
            kind = written = _KINDS[settlement.outcome]
            if self.relayed and kind in _ENDS and settlement.fence.job_id in self.relayed:
                # In lower case, the script notes the end for the relay.
                ended = True
                written = kind.lower()
                if settlement.effects and any(isinstance(effect, LeavePolicies) for effect in settlement.effects):
                    outcomes = True
                    written = _WITH_POLICIES[settlement.outcome]
            records += written + settlement.fence.job_id.bytes + settlement.fence.token
            if kind == _FAIL:
                extras.append(dump_failure(settlement.failure))
            elif kind != _REMOVE:
                extras.append(microseconds(settlement.delay))
                if kind == _RETRY:
                    extras.append(_summary(settlement.failure))
        queues, owners, follow_ups = self._follow_ups()
        keys: list[bytes | str] = [each for queue in queues for each in queue_keys(queue)]
        if ended:
            keys.append(key(self.queue, ENDED))
        if outcomes:
            keys.append(key(self.queue, OUTCOMES))
        if len(queues) > 1:
            keys.append(QUEUES)
        names = ",".join(queues[1:])
        headers = self._headers()
        return _SETTLE(keys, self.connection, bytes(records), owners, *pack_jobs(follow_ups), names, headers, *extras)

    def _headers(self) -> bytes:
        """New headers of jobs, each with the position of its settlement."""
        packed = bytearray()
        for position, settlement in enumerate(self.settlements, 1):
            if settlement.effects and (headers := settlement.headers) is not None:
                text = headers.replace("\n", " ").encode()
                packed += _HEADERS.pack(position, len(text)) + text
        return bytes(packed)

    def _follow_ups(self) -> tuple[list[str], bytes, list[tuple[Envelope, int, bytes]]]:
        """The queues whose keys the script gets, the positions of the owning settlements, and the follow-ups."""
        queues = [self.queue]
        owners = bytearray()
        jobs = []
        for position, settlement in enumerate(self.settlements, 1):
            for envelope in settlement.inserted if settlement.effects else ():
                owners += _OWNER.pack(position)
                if envelope.queue not in queues and not self.store.one_slot:
                    jobs.append((envelope, cross_slot.PARKED, cross_slot.pack(envelope)))
                    continue
                if envelope.queue not in queues:
                    queues.append(envelope.queue)
                jobs.append((envelope, queues.index(envelope.queue) + 1, pack_body(envelope)))
        return queues, bytes(owners), jobs


def _summary(failure: Failure | None) -> str:
    return "unknown" if failure is None else failure.summary


def load_failure(line: str) -> Failure:
    try:
        values = json.loads(line)
        return Failure(values["type"], values["message"], values["traceback"])
    except (ValueError, KeyError, TypeError):
        return Failure("unknown", line, "")
