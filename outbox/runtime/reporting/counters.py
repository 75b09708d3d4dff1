"""Counts of what a worker process has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outbox.middleware.interruption import Interruption
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import UNCOUNTED, Outcome

_FAILED = Outcome.FAILED


@dataclass(slots=True)
class Counters:
    processed: int = 0
    """Attempts whose ends are in the store."""
    failed: int = 0
    """Those of them that were the last of their jobs."""
    handed_back: int = 0
    """Attempts given back unfinished, because the worker stopped; not in ``processed``."""

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts whose ends are in the store."""
        for attempt in attempts:
            settlement = attempt.settlement
            if settlement is None:
                continue
            if settlement.outcome in UNCOUNTED:
                self._count_uncounted(attempt, settlement.outcome)
                continue
            self.processed += 1
            if settlement.outcome is _FAILED:
                self.failed += 1

    def _count_uncounted(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.interruption is Interruption.SHUTDOWN:
            self.handed_back += 1
        elif outcome is Outcome.SNOOZED or attempt.interruption is not None:
            self.processed += 1
