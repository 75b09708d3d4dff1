"""A claim that stands while its worker waits: whoever stores a job hands it over at once.

Claim and answer are those of `claiming`, but for their order: the claim is made when there is nothing, and the answer
comes when there is, on a channel of this process's own. An answer that nobody hears costs no attempt: the next look is
told that the claim stands no more, and the next claim asks for what it took, as after any lost answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import uuid4

from outbox import clock
from outbox.drivers.base import BlockingClaimRequest, Claim
from outbox.drivers.redis.encoding import microseconds
from outbox.drivers.redis.keys import queue_keys
from outbox.drivers.redis.pubsub import PubSub, Subscribed
from outbox.drivers.redis.script import Call, Script
from outbox.ids import new_token

_BLOCK = Script("block", returns=int)
_TERMS = struct.Struct(">16sQ")

_SECONDS, _SHARE_OF_LEASE = 2.0, 0.1
"""For how long it stands after a look; and no longer than this part of the lease. A worker without many others looks
more often. If its machine goes without a word, what it is handed until then waits for the end of the lease, as does
what it had claimed before."""

_RETRY_SECONDS = 30.0
"""Until it is tried again to listen, after that failed."""


@dataclass(slots=True)
class PendingClaim:
    """A claim that may have been carried out."""

    queue: str
    lease: float
    token: bytes
    member: bytes
    """As `scripts/common/claims.lua` keeps it."""
    since: float
    """On `outbox.clock`: it was not carried out before."""
    answer: bytes | None = None
    """What was heard of it."""


class BlockingClaim:
    """At most one of a driver, on one queue."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._channel = f"outbox:claimed:{uuid4().hex}"
        self._subscription: Subscribed | None = None
        self._retry_at = float("-inf")
        self._wake: Callable[[], None] | None = None
        self.pending: PendingClaim | None = None
        """What is to be followed by another claim, which asks for what it took if that was not heard."""

    @property
    def answered(self) -> bool:
        return self.pending is not None and self.pending.answer is not None

    async def listen(self) -> bool:
        """Whether an answer would be heard."""
        if self._subscription is not None and not self._subscription.closed:
            return True
        await self.unsubscribe()
        if clock.now() < self._retry_at:
            return False
        try:
            self._subscription = await self._pubsub.subscribe(self._channel, self._receive)
        except Exception:  # noqa: BLE001 - whatever it is, jobs are found without listening
            # A user who may not listen is told of jobs in other ways; whether the server answers, others say.
            self._retry_at = clock.now() + _RETRY_SECONDS
            return False
        return True

    async def unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    def request(self, queue: str, waiting: BlockingClaimRequest) -> Call:
        """What lets it stand from now on, or for longer. Once it may have pending it is not to begin anew: it may have
        been carried out meanwhile."""
        begun = self.pending is not None
        if self.pending is None:
            token = new_token()
            member = _TERMS.pack(token, microseconds(waiting.lease)) + self._channel.encode()
            self.pending = PendingClaim(queue, waiting.lease, token, member, clock.now())
        self._wake = waiting.wake
        seconds = min(_SECONDS, _SHARE_OF_LEASE * waiting.lease)
        return _BLOCK(queue_keys(queue), self.pending.member, microseconds(seconds), int(begun))

    def is_pending(self, since: float) -> None:
        """The server says so of a moment after ``since``, on `outbox.clock`."""
        if self.pending is not None:
            self.pending.since = since

    def end(self, known: Iterable[Claim]) -> None:
        """A claim that followed asked for what it took, and returned these. What it heard of meanwhile, and did not
        find, the next one collects."""
        answer = self.pending.answer if self.pending is not None else None
        if answer is None or any(answer.startswith(claim.fence.job_id.bytes) for claim in known):
            self.pending = None

    def _receive(self, message: bytes) -> None:
        # What comes late has been asked for.
        if self.pending is not None and message.startswith(self.pending.token):
            self.pending.answer = message[len(self.pending.token) :]
            if self._wake is not None:
                self._wake()
