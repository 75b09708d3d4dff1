"""Calls of one driver whose answers were lost in an outage: they may have been carried out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from outbox.settlement import Fence

_MOST = 50_000
"""Ends that are remembered. A worker that is stopped during an outage never repeats its last ones."""


@dataclass(frozen=True, slots=True)
class UnconfirmedClaim:
    """Its token finds what it took."""

    token: bytes
    lease: float
    since: float
    """On `outbox.clock`: it was not carried out before."""


class Unconfirmed:
    """Kept from a call that was given up for the next one of its kind, which finds out."""

    def __init__(self) -> None:
        self.claims: dict[str, UnconfirmedClaim] = {}
        """By queue. The next claim asks for what each of them took, before anything else."""
        self.ends: dict[Fence, None] = {}
        """Settlements that may be written. The completer repeats them until they are answered."""

    def add_ends(self, fences: Iterable[Fence]) -> None:
        self.ends.update(dict.fromkeys(fences))
        while len(self.ends) > _MOST:
            del self.ends[next(iter(self.ends))]

    def end_answered(self, fences: Iterable[Fence]) -> None:
        if self.ends:
            for fence in fences:
                self.ends.pop(fence, None)
