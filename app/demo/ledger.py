"""What the feeder knows it has committed: one side of the comparison."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from outbox import JobId


def receipt_for(customer: str) -> str:
    return f"receipt {customer}"


def processed(sensor: str, measured_at: datetime) -> str:
    return f"processed {sensor} {measured_at.isoformat()}"


def chart(name: str) -> str:
    return f"chart {name}"


@dataclass
class Ledger:
    """Each committed job with the effect it owes the world, and counts of what was fed."""

    committed: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    in_order: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Jobs of each sensor, as they were dispatched: they run in this order."""
    closed: bool = False
    """Everything is fed: whoever waits for the last job knows which that is."""

    def commit(self, owed: Iterable[tuple[JobId, str]]) -> None:
        """The transaction that dispatched these jobs has committed."""
        self.committed.update((str(job_id), effect) for job_id, effect in owed)

    def keep_order(self, jobs: Iterable[tuple[str, JobId]]) -> None:
        """These jobs, each with its sensor, were dispatched in this order."""
        for sensor, job_id in jobs:
            self.in_order[sensor].append(str(job_id))

    def roll_back(self, what: str, *, jobs: int) -> None:
        """A transaction or savepoint is gone, and with it the jobs that were dispatched in it."""
        self.counts[f"{what} rolled back"] += 1
        self.counts["jobs rolled back"] += jobs
