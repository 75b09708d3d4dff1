"""What was asked and not answered before the call was given up: it may have been carried out.

Whoever calls again finds out here what to ask, or how to read the answer. Within one call it is the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnansweredClaim:
    """Its token finds what it took."""

    token: bytes
    lease: float
    since: float
    """On `outbox.clock`: it was not carried out before."""


class Doubts:
    """Of one driver."""

    def __init__(self) -> None:
        self.claims: dict[str, UnansweredClaim] = {}
        """By queue. The next claim of the queue is made in its place."""
