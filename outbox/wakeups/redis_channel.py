"""What is said over Redis: which queues got jobs, to whoever is there to hear it.

Every process of every database and every Redis connection uses one channel. A name that means another queue of somebody
else's costs a worker one look.
"""

from __future__ import annotations

from collections.abc import Iterable

CHANNEL = "outbox:wake"
"""Also published to by the scripts of the Redis driver."""


def pack(queues: Iterable[str]) -> str:
    return ",".join(sorted(queues))


def unpack(message: bytes) -> frozenset[str]:
    return frozenset(filter(None, message.decode("ascii", "replace").split(",")))
