"""A claim that stays pending while its worker is idle. The script that stores the next job carries it out.

The answer arrives on a channel that only this process subscribes to. A lost answer costs no attempt: the next probe
learns that the claim is no longer pending, and the next claim asks for its jobs by the token.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import uuid4

from outbox import clock
from outbox.drivers.redis.encoding import microseconds
from outbox.drivers.redis.keys import queue_keys
from outbox.drivers.redis.pubsub import PubSub, Subscribed
from outbox.drivers.redis.script import Call, Script
from outbox.drivers.values import BlockingClaimRequest, Claim
from outbox.ids import new_token

_BLOCK = Script("block", returns=int)
_TERMS = struct.Struct(">16sQ")

PENDING_SECONDS, SHARE_OF_LEASE = 2.0, 0.1
"""How long a claim is pending after a probe, in seconds and as a share of the lease. If the machine of the worker
fails, a job that it is given within that time waits for the end of the lease."""

_RETRY_SECONDS = 30.0
"""Seconds until a failed subscription is tried again."""


@dataclass(slots=True)
class PendingClaim:
    """A blocking claim that may have been carried out."""

    queue: str
    lease: float
    token: bytes
    member: bytes
    """As `scripts/common/claims.lua` keeps it."""
    since: float
    """The time on `outbox.clock` before which it was not carried out."""
    answer: bytes | None = None
    """The answer, once it has arrived."""


class BlockingClaim:
    """At most one for each driver, on one queue."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._channel = f"outbox:claimed:{uuid4().hex}"
        self._subscription: Subscribed | None = None
        self._retry_at = float("-inf")
        self._wake: Callable[[], None] | None = None
        self.pending: PendingClaim | None = None
        """The next claim ends it, and asks for its jobs if the answer has not arrived."""

    @property
    def answered(self) -> bool:
        return self.pending is not None and self.pending.answer is not None

    async def listen(self) -> bool:
        """Subscribe; return whether an answer would arrive."""
        if self._subscription is not None and not self._subscription.closed:
            return True
        await self.unsubscribe()
        if clock.now() < self._retry_at:
            return False
        try:
            self._subscription = await self._pubsub.subscribe(self._channel, self._receive)
        except Exception:  # noqa: BLE001 - jobs are announced in another way as well
            self._retry_at = clock.now() + _RETRY_SECONDS
            return False
        return True

    async def unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    def request(self, queue: str, waiting: BlockingClaimRequest) -> Call:
        """The call that makes the claim pending, or prolongs it. A claim that may have been carried out is only
        prolonged."""
        begun = self.pending is not None
        if self.pending is None:
            token = new_token()
            member = _TERMS.pack(token, microseconds(waiting.lease)) + self._channel.encode()
            self.pending = PendingClaim(queue, waiting.lease, token, member, clock.now())
        self._wake = waiting.wake
        seconds = min(PENDING_SECONDS, SHARE_OF_LEASE * waiting.lease)
        return _BLOCK(queue_keys(queue), self.pending.member, microseconds(seconds), int(begun))

    def is_pending(self, since: float) -> None:
        """The server confirms that the claim was pending after ``since``, on `outbox.clock`."""
        if self.pending is not None:
            self.pending.since = since

    def end(self, known: Iterable[Claim]) -> None:
        """The next claim asked for its jobs and returned ``known``. If an answer names another job, it stays, and the
        claim after that collects it."""
        answer = self.pending.answer if self.pending is not None else None
        if answer is None or any(answer.startswith(claim.fence.job_id.bytes) for claim in known):
            self.pending = None

    def _receive(self, message: bytes) -> None:
        # A late answer has another token: its jobs have been asked for.
        if self.pending is not None and message.startswith(self.pending.token):
            self.pending.answer = message[len(self.pending.token) :]
            if self._wake is not None:
                self._wake()
