"""Writes that may have been committed: the answer to the COMMIT was lost, and the server stayed away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outbox.drivers.values import Claim
from outbox.ids import JobId
from outbox.settlement import Fence, Settlement


class UnconfirmedWrites:
    """Kept from the call that gave up for the next one of its kind, which finds out."""

    def __init__(self) -> None:
        self.claims: dict[JobId, Claim] = {}
        """Jobs that may be held, although no worker runs them. A later claim of such a job shows that it was not
        held."""
        self.ends: frozenset[Fence] = frozenset()
        """Fences of the last settlement transaction whose COMMIT got no answer. One transaction is enough: the caller
        retries those settlements before any others."""

    def add(self, claims: Iterable[Claim]) -> None:
        self.claims.update((claim.fence.job_id, claim) for claim in claims)

    def forget(self, claims: Iterable[Claim]) -> None:
        if self.claims:
            for claim in claims:
                self.claims.pop(claim.fence.job_id, None)

    def take(self, queues: Sequence[str] | None) -> list[Claim]:
        """Those of some queues, or of all: for one call to find out about, and to `add` again what it could not."""
        taken = [claim for claim in self.claims.values() if queues is None or claim.queue in queues]
        self.forget(taken)
        return taken

    def settled(self, settlements: Iterable[Settlement]) -> None:
        if self.ends:
            self.ends = self.ends.difference(settlement.fence for settlement in settlements)
