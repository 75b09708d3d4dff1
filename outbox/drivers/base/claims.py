"""Optional parts: further ways to claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outbox.drivers.values import BlockingClaimRequest, Claim, NextDue


class ShortJobClaims(Protocol):
    """A store that holds short jobs in a cheaper way, although it is in the way of other claims while it lasts."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float) -> list[Claim]:
        """As `JobClaims.claim`, for a caller that settles or extends all of these jobs within about a second."""


class AgingClaims(Protocol):
    """A store that can claim from the lowest priority whose jobs have waited for long."""

    async def claim(self, queues: Sequence[str], limit: int, lease: float, waited: float) -> list[Claim]:
        """As `JobClaims.claim`, for one priority of one queue: the lowest whose first job has been claimable for more
        than ``waited`` seconds. Nothing where there is none."""


class BlockingClaims(Protocol):
    """A store that claims the next job for an idle worker as soon as it arrives."""

    async def next_due(self, queues: Sequence[str], waiting: BlockingClaimRequest) -> NextDue:
        """As `JobClaims.next_due`, and make a claim pending. The next claim of the same queues returns its job, and so
        does `cancel`: one of the two has to follow."""

    async def cancel(self) -> list[Claim]:
        """Cancel the pending claim; return the jobs that it already claimed."""
