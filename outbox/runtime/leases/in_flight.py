"""The jobs that this process holds on one connection, from their claims until their ends are in the store."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import takewhile

from outbox import clock
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Fence


@dataclass(frozen=True, slots=True)
class _ClaimBatch:
    """What was claimed together."""

    claimed_at: float
    short_jobs: bool


class InFlight:
    """Filled by the thread of the stores, which renews leases as well; emptied by the event loop of the worker."""

    def __init__(self) -> None:
        # Reentrant: a signal handler that ends the process asks what is held.
        self._lock = threading.RLock()
        # By themselves, not by their fences: every job passes through here, and few are ever looked for. In the order
        # in which they were claimed.
        self._attempts: dict[Attempt, _ClaimBatch] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._attempts

    def add(self, attempts: Iterable[Attempt], *, short_jobs: bool = False) -> None:
        """``short_jobs``: as the claim was told."""
        batch = _ClaimBatch(clock.now(), short_jobs)
        with self._lock:
            self._attempts.update(dict.fromkeys(attempts, batch))

    def discard(self, attempts: Iterable[Attempt]) -> None:
        with self._lock:
            for attempt in attempts:
                self._attempts.pop(attempt, None)
                if attempt.resources is not None:
                    attempt.resources.settled()

    def attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts)

    def renewable(self) -> list[Fence]:
        """What to renew: also ended attempts, until their settlements are written. Never one whose lease was lost: it
        would be kept from its next owner."""
        return [attempt.fence for attempt in self.attempts() if not _is_gone(attempt)]

    def held_since(self, moment: float) -> int:
        """How many have been held since that ``moment`` or longer, on `outbox.clock`."""
        with self._lock:
            return sum(1 for _ in takewhile(lambda batch: batch.claimed_at <= moment, self._attempts.values()))

    def overstaying(self, moment: float) -> list[Fence]:
        """Those that were claimed as short jobs, have been held since that ``moment`` or longer, and may be
        renewed."""
        with self._lock:
            batches = list(self._attempts.items())
        return [
            attempt.fence
            for attempt, batch in batches
            if batch.short_jobs and batch.claimed_at <= moment and not _is_gone(attempt)
        ]

    def renewed(self, fences: AbstractSet[Fence], deadline: float) -> None:
        """These leases now end at ``deadline``, on `outbox.clock`."""
        with self._lock:
            for attempt, batch in self._attempts.items():
                if attempt.fence in fences:
                    attempt.deadline = deadline
                    if batch.short_jobs:
                        self._attempts[attempt] = _ClaimBatch(batch.claimed_at, short_jobs=False)

    def expiring(self, before: float) -> list[Attempt]:
        """Attempts still running whose leases end before that time, on `outbox.clock`."""
        return [attempt for attempt in self.attempts() if not attempt.ended and attempt.deadline <= before]


def _is_gone(attempt: Attempt) -> bool:
    return attempt.interruption is not None and attempt.interruption.final
