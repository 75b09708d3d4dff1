"""Taking jobs, and keeping them: claim, extend, look."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

from outbox import clock
from outbox.drivers.base import Claim, Lease, Outlook, Waiting
from outbox.drivers.redis.keys import WORKERS, queue_keys
from outbox.drivers.redis.packing import microseconds, unpack_body
from outbox.drivers.redis.scripting import Call, Script
from outbox.drivers.redis.standing import StandingClaim, Stood
from outbox.drivers.redis.store import Store
from outbox.drivers.redis.whereabouts import Whereabouts
from outbox.ids import new_token
from outbox.settlement import Fence

_CLAIM, _EXTEND = Script("claim", "holding"), Script("extend")
_DUE, _IDLE = Script("due"), Script("idle")
_RECORD = struct.Struct(">16sBIBI")
_KEPT = "1"

_SEEN_SECONDS = 60.0
"""A worker that was not heard of for so long does not share the looking any more."""


async def claim(
    store: Store,
    whereabouts: Whereabouts,
    standing: StandingClaim,
    queues: Sequence[str],
    limit: int,
    lease: float,
    *,
    name: str,
) -> list[Claim]:
    """A script for the first queue, and one for each of the others in which there is something, while there is room.

    An idle worker's look costs two round trips, however many queues it has; what was taken for it while it waited,
    none. Jobs that cannot be run become failed jobs of the connection ``name``.
    """
    stood = standing.claim
    if stood is not None and stood.answer is not None:
        return _collect(whereabouts, standing, stood, stood.answer)
    token = new_token() if stood is None else stood.token
    claims = await _claim_from(store, whereabouts, queues[0], token, limit, lease, stood, name=name) if queues else []
    standing.end(claims)
    others = queues[1:]
    if len(claims) >= limit or not others:
        return claims
    waits = await store.do_all([_DUE(queue_keys(queue)) for queue in others])
    for queue, wait in zip(others, waits, strict=True):
        if wait == 0 and len(claims) < limit:
            claims += await _claim_from(store, whereabouts, queue, token, limit - len(claims), lease, name=name)
    return claims


async def withdraw(store: Store, whereabouts: Whereabouts, standing: StandingClaim, *, name: str) -> list[Claim]:
    """Let no claim stand; return what it has taken."""
    stood = standing.claim
    if stood is None:
        return []
    claims: list[Claim] = []
    if stood.answer is None:
        claims = await _claim_from(store, whereabouts, stood.queue, stood.token, 0, stood.lease, stood, name=name)
        standing.end(claims)
    if standing.claim is not None and stood.answer is not None:
        claims = _collect(whereabouts, standing, stood, stood.answer)
    return claims


async def _claim_from(
    store: Store,
    whereabouts: Whereabouts,
    queue: str,
    token: bytes,
    limit: int,
    lease: float,
    stood: Stood | None = None,
    *,
    name: str,
) -> list[Claim]:
    keys = queue_keys(queue)
    begun = clock.now()
    first = begun if stood is None else stood.since

    async def take(since: float | None) -> list[Claim]:
        # One call is one token, its retries included: should a script have run whose answer was lost, the token finds
        # what it took. A claim that stood is such a call as well.
        ago = -1 if stood is None and since is None else microseconds(clock.now() - first)
        member = b"" if stood is None else stood.member
        answer = await store.send(_CLAIM(keys, token, limit, microseconds(lease), ago, member, name))
        if answer is None:
            return []
        records, jobs, recovered = answer
        return _claims(records, jobs, queue=queue, token=token, deadline=(first if recovered else begun) + lease)

    claims = await store.persist(take)
    whereabouts.claimed((claim.fence.job_id for claim in claims), queue)
    return claims


def _collect(whereabouts: Whereabouts, standing: StandingClaim, stood: Stood, answer: bytes) -> list[Claim]:
    records, jobs = answer[: _RECORD.size], answer[_RECORD.size :]
    claims = _claims(records, jobs, queue=stood.queue, token=stood.token, deadline=stood.since + stood.lease)
    standing.end(claims)
    whereabouts.claimed((claim.fence.job_id for claim in claims), stood.queue)
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


async def look(store: Store, standing: StandingClaim, queues: Sequence[str], waiting: Waiting | None = None) -> Outlook:
    """One round trip. With ``waiting`` a claim of the first queue stands from then on."""
    asked = [*(_DUE(queue_keys(queue)) for queue in queues), _IDLE(WORKERS, microseconds(_SEEN_SECONDS), *queues)]
    # In a cluster, whoever listens at another node is not counted.
    if waiting is None or not store.one_slot or standing.answered or not await standing.listen():
        *waits, workers = await store.do_all(asked)
    else:
        *waits, workers = await store.persist(lambda _: _look_and_stand(store, standing, asked, queues[0], waiting))
    due = min((wait / 1_000_000 for wait in waits if wait >= 0), default=None)
    return Outlook(0.0 if standing.answered else due, max(1, workers))


async def _look_and_stand(
    store: Store, standing: StandingClaim, asked: Sequence[Call], queue: str, waiting: Waiting
) -> list[int]:
    begun = clock.now()
    *answers, stands = await store.send_all([*asked, standing.stand(queue, waiting)])
    if stands:
        standing.stands(begun)
        return answers
    # It was carried out, or its time was over: a claim is to find out.
    return [0, *answers]
