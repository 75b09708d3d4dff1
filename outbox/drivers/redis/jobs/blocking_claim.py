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

_STAND = Script("stand", returns=int)
_TERMS = struct.Struct(">16sQ")

_SECONDS, _SHARE_OF_LEASE = 2.0, 0.1
"""For how long it stands after a look; and no longer than this part of the lease. A worker without many others looks
more often. If its machine goes without a word, what it is handed until then waits for the end of the lease, as does
what it had claimed before."""

_DEAF_SECONDS = 30.0
"""Until it is tried again to listen, after that failed."""


@dataclass(slots=True)
class Stood:
    """A claim that may have been carried out."""

    queue: str
    lease: float
    token: bytes
    member: bytes
    """As `scripts/holding.lua` keeps it."""
    since: float
    """On `outbox.clock`: it was not carried out before."""
    answer: bytes | None = None
    """What was heard of it."""


class BlockingClaim:
    """At most one of a driver, on one queue."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._channel = f"outbox:claimed:{uuid4().hex}"
        self._line: Subscribed | None = None
        self._deaf_until = float("-inf")
        self._wake: Callable[[], None] | None = None
        self.claim: Stood | None = None
        """What is to be followed by another claim, which asks for what it took if that was not heard."""

    @property
    def answered(self) -> bool:
        return self.claim is not None and self.claim.answer is not None

    async def listen(self) -> bool:
        """Whether an answer would be heard."""
        if self._line is not None and not self._line.closed:
            return True
        await self.hang_up()
        if clock.now() < self._deaf_until:
            return False
        try:
            self._line = await self._pubsub.subscribe(self._channel, self._hear)
        except Exception:  # noqa: BLE001 - whatever it is, jobs are found without listening
            # A user who may not listen is told of jobs in other ways; whether the server answers, others say.
            self._deaf_until = clock.now() + _DEAF_SECONDS
            return False
        return True

    async def hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def stand(self, queue: str, waiting: BlockingClaimRequest) -> Call:
        """What lets it stand from now on, or for longer. Once it may have stood it is not to begin anew: it may have
        been carried out meanwhile."""
        begun = self.claim is not None
        if self.claim is None:
            token = new_token()
            member = _TERMS.pack(token, microseconds(waiting.lease)) + self._channel.encode()
            self.claim = Stood(queue, waiting.lease, token, member, clock.now())
        self._wake = waiting.wake
        seconds = min(_SECONDS, _SHARE_OF_LEASE * waiting.lease)
        return _STAND(queue_keys(queue), self.claim.member, microseconds(seconds), int(begun))

    def stands(self, since: float) -> None:
        """The server says so of a moment after ``since``, on `outbox.clock`."""
        if self.claim is not None:
            self.claim.since = since

    def end(self, known: Iterable[Claim]) -> None:
        """A claim that followed asked for what it took, and returned these. What it heard of meanwhile, and did not
        find, the next one collects."""
        answer = self.claim.answer if self.claim is not None else None
        if answer is None or any(answer.startswith(claim.fence.job_id.bytes) for claim in known):
            self.claim = None

    def _hear(self, message: bytes) -> None:
        # What comes late has been asked for.
        if self.claim is not None and message.startswith(self.claim.token):
            self.claim.answer = message[len(self.claim.token) :]
            if self._wake is not None:
                self._wake()
