"""The channel on which Redis carries wake-ups: its messages are names of queues.

All databases and Redis connections share it. If two of them have a queue of the same name, both are woken, which costs
one probe.
"""

from __future__ import annotations

from collections.abc import Iterable

CHANNEL = "outbox:wake"
"""The scripts of the Redis driver publish to it as well."""


def pack(queues: Iterable[str]) -> str:
    return ",".join(sorted(queues))


def unpack(message: bytes) -> frozenset[str]:
    return frozenset(filter(None, message.decode("ascii", "replace").split(",")))
