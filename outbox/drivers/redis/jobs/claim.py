"""Claims jobs, renews their leases, and probes for the next due job."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

from outbox import clock
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import microseconds, unpack_body
from outbox.drivers.redis.jobs.blocking_claim import BlockingClaim, PendingClaim
from outbox.drivers.redis.jobs.job_locator import JobLocator
from outbox.drivers.redis.jobs.unconfirmed import Unconfirmed, UnconfirmedClaim
from outbox.drivers.redis.keys import JOBS, WORKERS, key, queue_keys
from outbox.drivers.redis.script import Call, Script, command, signs
from outbox.drivers.values import SILENT_SECONDS, BlockingClaimRequest, Claim, Lease, NextDue
from outbox.envelope import policies_in
from outbox.errors import BackendUnavailable
from outbox.ids import JobId, new_token, stored_job_id
from outbox.settlement import Fence

_CLAIM, _EXTEND = Script("claim", "common/claims", returns=(list, NoneType)), Script("extend", returns=bytes)
_DUE, _IDLE, _READY = (
    Script("next_due", returns=int),
    Script("count_idle", returns=int),
    Script("count_ready", returns=int),
)
_RECORD = struct.Struct(">16sBIBI")
_KEPT = "1"


class RedisClaims:
    """The claims of one driver. ``name`` is that of the connection."""

    def __init__(
        self, store: Store, locator: JobLocator, blocking: BlockingClaim, unconfirmed: Unconfirmed, name: str
    ) -> None:
        self.store = store
        self.locator = locator
        self.blocking = blocking
        self.unconfirmed = unconfirmed
        self.name = name

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        """One script claims from the first queue. If there is room, two more round trips count and claim in all others.

        A claim that finds nothing costs two round trips, a claim from several queues three, and the answer of a
        blocking claim none. Jobs that cannot be run become failed jobs of the connection.
        """
        pending = self.blocking.pending
        if pending is not None and pending.answer is not None:
            return self._collect(pending, pending.answer)
        call = _ClaimCall(self, new_token() if pending is None else pending.token, lease)
        if self.unconfirmed.claims and (found := await call.recover(queues, limit)):
            # Alone: if another node of a cluster is down, the next claim raises.
            return found
        claims = await call.claim({queues[0]: limit}, pending) if queues else []
        self.blocking.end(claims)
        others = queues[1:]
        if len(claims) >= limit or not others:
            return claims
        try:
            wanted = await call.share(others, limit - len(claims))
            return [*claims, *(await call.claim(wanted) if wanted else ())]
        except BackendUnavailable:
            # The caller must learn of the outage. The next claim asks for the jobs of this one.
            if claims:
                call.not_confirmed([queues[0]])
            raise

    async def cancel_blocking(self) -> list[Claim]:
        """Cancel the pending blocking claim; return the jobs that it took."""
        pending = self.blocking.pending
        if pending is None:
            return []
        claims: list[Claim] = []
        if pending.answer is None:
            claims = await _ClaimCall(self, pending.token, pending.lease).claim({pending.queue: 0}, pending)
            self.blocking.end(claims)
        if self.blocking.pending is not None and pending.answer is not None:
            claims = self._collect(pending, pending.answer)
        return claims

    def _collect(self, pending: PendingClaim, answer: bytes) -> list[Claim]:
        records, jobs = answer[: _RECORD.size], answer[_RECORD.size :]
        deadline = pending.since + pending.lease
        claims = _claims(self.locator, records, jobs, queue=pending.queue, token=pending.token, deadline=deadline)
        self.blocking.end(claims)
        return claims

    async def give_back_unconfirmed(self) -> None:
        """Put back the jobs of unconfirmed claims. Their attempts do not count.

        Raises:
            BackendUnavailable: the jobs wait for the end of their leases.
        """
        if self.unconfirmed.claims:
            await _ClaimCall(self, b"", 0.0).recover(list(self.unconfirmed.claims), 0)

    async def missing(self, job_ids: Sequence[JobId]) -> frozenset[JobId]:
        """One command for each queue of these claimed jobs. A job whose queue is not known any more was settled."""
        by_queue: dict[str, list[JobId]] = {}
        for job_id in job_ids:
            if (queue := self.locator.queue_of(job_id)) is not None:
                by_queue.setdefault(queue, []).append(job_id)
        asked = [
            command("HMGET", key(queue, JOBS), *(job_id.bytes for job_id in ids)) for queue, ids in by_queue.items()
        ]
        found = await self.store.do_all(asked) if asked else []
        return frozenset(
            job_id
            for ids, bodies in zip(by_queue.values(), found, strict=True)
            for job_id, body in zip(ids, bodies, strict=True)
            if body is None
        )

    async def extend(self, fences: Sequence[Fence], lease: float) -> Lease:
        """One script per queue, in one round trip."""
        places = await self.locator.of(fences)
        by_queue: dict[str, list[Fence]] = {}
        for fence in fences:
            queue = places.get(fence.job_id)
            if queue is not None:
                by_queue.setdefault(queue, []).append(fence)

        async def renew(_: float | None) -> Lease:
            deadline = clock.now() + lease
            answers = await self.store.send_all(
                [_EXTEND(queue_keys(queue), microseconds(lease), _records(held)) for queue, held in by_queue.items()]
            )
            kept = frozenset(
                fence
                for held, answer in zip(by_queue.values(), answers, strict=True)
                for fence, sign in zip(held, signs(answer, len(held)), strict=True)
                if sign == _KEPT
            )
            return Lease(deadline, kept, frozenset(fences) - kept)

        renewed = await self.store.persist(renew)
        self.locator.renewed({fence.job_id: places[fence.job_id] for fence in renewed.kept})
        return renewed

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest | None = None) -> NextDue:
        """One round trip. With ``waiting`` it makes a blocking claim of the first queue pending."""
        asked = [*(_DUE(queue_keys(queue)) for queue in queues), _IDLE(WORKERS, microseconds(SILENT_SECONDS), *queues)]
        known = self.blocking.answered or any(queue in self.unconfirmed.claims for queue in queues)
        # In a cluster, subscribers at other nodes are not counted.
        if waiting is None or not self.store.one_slot or known or not await self.blocking.listen():
            *waits, workers = await self.store.do_all(asked)
        else:
            *waits, workers = await self.store.persist(lambda _: self._probe_and_block(asked, queues[0], waiting))
        due = min((wait / 1_000_000 for wait in waits if wait >= 0), default=None)
        return NextDue(0.0 if known or self.blocking.answered else due, max(1, workers))

    async def _probe_and_block(self, asked: Sequence[Call], queue: str, waiting: BlockingClaimRequest) -> list[int]:
        begun = clock.now()
        *answers, is_pending = await self.store.send_all([*asked, self.blocking.request(queue, waiting)])
        if is_pending:
            self.blocking.is_pending(begun)
            return answers
        # It was carried out, or it has expired. A claim finds out.
        return [0, *answers]


class _ClaimCall:
    """One claim. A repeated one finds its jobs by the token. ``lease`` is in seconds."""

    def __init__(self, claims: RedisClaims, token: bytes, lease: float) -> None:
        self._store = claims.store
        self._locator = claims.locator
        self._unconfirmed = claims.unconfirmed
        self._name = claims.name
        self._token = token
        self._lease = lease
        self._begun = clock.now()

    async def share(self, queues: Sequence[str], limit: int) -> dict[str, int]:
        """How many jobs to claim from each queue with claimable jobs: ``limit`` in total."""
        ready = await self._store.do_all([_READY(queue_keys(queue), limit) for queue in queues])
        wanted = {}
        for queue, count in zip(queues, ready, strict=True):
            if count and limit:
                wanted[queue] = min(count, limit)
                limit -= wanted[queue]
        return wanted

    async def claim(self, wanted: dict[str, int], pending: PendingClaim | None = None) -> list[Claim]:
        """Claim up to the wanted number from each queue, in one round trip."""
        first = self._begun if pending is None else pending.since
        member = b"" if pending is None else pending.member

        async def take(since: float | None) -> list[Claim]:
            # A blocking claim may have been carried out before this claim is first sent.
            ago = -1 if pending is None and since is None else microseconds(clock.now() - first)
            calls = [
                self._call(queue, limit, ago, member, room=limit if pending is None else max(limit, 1))
                for queue, limit in wanted.items()
            ]
            answers = await self._store.send_all(calls) if len(calls) > 1 else [await self._store.send(calls[0])]
            return [
                claim
                for queue, answer in zip(wanted, answers, strict=True)
                for claim in self._claimed(queue, answer, self._token, self._lease)
            ]

        # A blocking claim keeps its token until there is an answer.
        claims = await self._store.persist(take, None if pending is not None else lambda: self.not_confirmed(wanted))
        for queue in wanted:
            self._unconfirmed.claims.pop(queue, None)
        return claims

    async def recover(self, queues: Sequence[str], room: int) -> list[Claim]:
        """The jobs of unconfirmed claims on ``queues``. Jobs beyond ``room`` are put back.

        Raises:
            BackendUnavailable: some servers do not answer, and the others have none of the jobs.
        """
        claims: list[Claim] = []
        outage: BackendUnavailable | None = None
        for queue in queues:
            earlier = self._unconfirmed.claims.get(queue)
            if earlier is None:
                continue
            try:
                claims += await self._recover(queue, earlier, room - len(claims))
            except BackendUnavailable as error:
                outage = error
        if outage is not None and not claims:
            raise outage
        return claims

    async def _recover(self, queue: str, earlier: UnconfirmedClaim, room: int) -> list[Claim]:
        async def ask(_: float | None) -> list[Claim]:
            ago = microseconds(clock.now() - earlier.since)
            call = _CLAIM(queue_keys(queue), earlier.token, 0, microseconds(earlier.lease), ago, b"", room, self._name)
            return self._claimed(queue, await self._store.send(call), earlier.token, earlier.lease)

        claims = await self._store.persist(ask)
        self._unconfirmed.claims.pop(queue, None)
        return claims

    def not_confirmed(self, queues: Iterable[str]) -> None:
        """This call is given up. It may have taken jobs from these queues."""
        for queue in queues:
            self._unconfirmed.claims.setdefault(queue, UnconfirmedClaim(self._token, self._lease, self._begun))

    def _call(self, queue: str, limit: int, ago: int, member: bytes, *, room: int) -> Call:
        lease = microseconds(self._lease)
        return _CLAIM(queue_keys(queue), self._token, limit, lease, ago, member, room, self._name)

    def _claimed(self, queue: str, answer: Any, token: bytes, lease: float) -> list[Claim]:
        if answer is None:
            return []
        records, jobs = answer
        return _claims(self._locator, records, jobs, queue=queue, token=token, deadline=self._begun + lease)


def _claims(
    locator: JobLocator, records: bytes, jobs: bytes, *, queue: str, token: bytes, deadline: float
) -> list[Claim]:
    claims = []
    end = 0
    for job_id, priority, attempts, rescued, length in _RECORD.iter_unpack(records):
        start, end = end, end + length
        _, name, headers, payload, relayed = unpack_body(jobs[start:end])
        fence = Fence(stored_job_id(job_id), token)
        # Only a database admits jobs with policies.
        policies = policies_in(headers) if relayed else None
        claims.append(
            Claim(fence, queue, name, priority, payload, headers, attempts, bool(rescued), deadline, policies)
        )
        locator.claimed(fence, queue, relayed=relayed)
    return claims


def _records(fences: Sequence[Fence]) -> bytes:
    return b"".join(fence.job_id.bytes + fence.token for fence in fences)
