"""Counts of what a worker process has done."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.middleware.interruption import Interruption
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Outcome


@dataclass(slots=True)
class Counters:
    processed: int = 0
    """Attempts whose ends are in the store."""
    failed: int = 0
    """Those of them that were the last of their jobs."""
    handed_back: int = 0
    """Attempts given back unfinished, because the worker stopped; not in ``processed``."""

    def count(self, attempt: Attempt) -> None:
        settlement = attempt.settlement
        if settlement is None:
            return
        if settlement.outcome is Outcome.DEFERRED and attempt.interruption is None:
            return  # it has not run
        if settlement.outcome in (Outcome.SNOOZED, Outcome.DEFERRED) and attempt.interruption is Interruption.SHUTDOWN:
            self.handed_back += 1
            return
        self.processed += 1
        if settlement.outcome is Outcome.FAILED:
            self.failed += 1
