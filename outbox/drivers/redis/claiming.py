"""Taking jobs, and keeping them: claim, extend, look."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

from outbox import clock
from outbox.drivers.base import Claim, Lease, Outlook
from outbox.drivers.redis.keys import WORKERS, queue_keys
from outbox.drivers.redis.packing import microseconds, unpack_body
from outbox.drivers.redis.scripting import Script
from outbox.drivers.redis.store import Store
from outbox.drivers.redis.whereabouts import Whereabouts
from outbox.ids import new_token
from outbox.settlement import Fence

_CLAIM, _EXTEND, _DUE, _IDLE = Script("claim"), Script("extend"), Script("due"), Script("idle")
_RECORD = struct.Struct(">16sBIBI")
_KEPT = "1"

_SEEN_SECONDS = 60.0
"""A worker that was not heard of for so long does not share the looking any more."""


async def claim(store: Store, whereabouts: Whereabouts, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
    """A script for the first queue, and one for each of the others in which there is something, while there is room.

    An idle worker's look costs two round trips, however many queues it has.
    """
    token = new_token()
    claims = await _claim_from(store, whereabouts, queues[0], token, limit, lease) if queues else []
    others = queues[1:]
    if len(claims) >= limit or not others:
        return claims
    waits = await store.do_all([_DUE(queue_keys(queue)) for queue in others])
    for queue, wait in zip(others, waits, strict=True):
        if wait == 0 and len(claims) < limit:
            claims += await _claim_from(store, whereabouts, queue, token, limit - len(claims), lease)
    return claims


async def _claim_from(
    store: Store, whereabouts: Whereabouts, queue: str, token: bytes, limit: int, lease: float
) -> list[Claim]:
    keys = queue_keys(queue)
    deadline = clock.now() + lease

    async def take(since: float | None) -> list[Claim]:
        # One call is one token, its retries included: should a script have run whose answer was lost, the token finds
        # what it took.
        ago = -1 if since is None else microseconds(since)
        answer = await store.send(_CLAIM(keys, token, limit, microseconds(lease), ago))
        return [] if answer is None else _claims(*answer, queue=queue, token=token, deadline=deadline)

    claims = await store.persist(take)
    whereabouts.claimed((claim.fence.job_id for claim in claims), queue)
    return claims


def _claims(records: bytes, jobs: bytes, *, queue: str, token: bytes, deadline: float) -> list[Claim]:
    claims = []
    end = 0
    for job_id, priority, attempts, rescued, length in _RECORD.iter_unpack(records):
        start, end = end, end + length
        _, name, headers, payload = unpack_body(jobs[start:end])
        fence = Fence(UUID(bytes=job_id), token)
        claims.append(Claim(fence, queue, name, priority, payload, headers, attempts, bool(rescued), deadline))
    return claims


async def extend(store: Store, whereabouts: Whereabouts, fences: Sequence[Fence], lease: float) -> Lease:
    """One script per queue, in one round trip."""
    places = await whereabouts.of(fences)
    by_queue: dict[str, list[Fence]] = {}
    for fence in fences:
        queue = places.get(fence.job_id)
        if queue is not None:
            by_queue.setdefault(queue, []).append(fence)

    async def renew(_: float | None) -> Lease:
        deadline = clock.now() + lease
        answers = await store.send_all(
            [_EXTEND(queue_keys(queue), microseconds(lease), _records(held)) for queue, held in by_queue.items()]
        )
        kept = frozenset(
            fence
            for held, answer in zip(by_queue.values(), answers, strict=True)
            for fence, sign in zip(held, answer.decode(), strict=True)
            if sign == _KEPT
        )
        return Lease(deadline, kept, frozenset(fences) - kept)

    renewed = await store.persist(renew)
    whereabouts.renewed({fence.job_id: places[fence.job_id] for fence in renewed.kept})
    return renewed


def _records(fences: Sequence[Fence]) -> bytes:
    return b"".join(fence.job_id.bytes + fence.token for fence in fences)


async def look(store: Store, queues: Sequence[str]) -> Outlook:
    """One round trip."""
    idle = _IDLE(WORKERS, microseconds(_SEEN_SECONDS), *queues)
    *waits, workers = await store.do_all([*(_DUE(queue_keys(queue)) for queue in queues), idle])
    due = min((wait / 1_000_000 for wait in waits if wait >= 0), default=None)
    return Outlook(due, max(1, workers))
