"""Claims whose costs are the same, however long statements take on a machine that is busy for a moment.

A worker that saw its looks take long waits before the next one. A test that claims once, and is about something else,
would find nothing.
"""

from __future__ import annotations

from outbox.drivers.database.claim_scan.scan_cost import ScanCost


class EvenCosts(ScanCost):
    """Claims begin at the head of the index, but for those that compare."""

    def from_head(self, jobs: int, select: float, update: float, whole: float) -> None:
        del select, update, whole
        super().from_head(jobs, 0.0, 0.0, 0.0)

    def from_cursors(self, jobs: int, select: float) -> None:
        del select
        super().from_cursors(jobs, 0.0)

    def probed(self, seconds: float, counting: float, workers: int = 1) -> None:
        del seconds
        super().probed(0.0, counting, workers)
