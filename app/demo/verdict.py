"""The comparison: what was committed against what happened in the world."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select

from app.db import snapshot
from app.demo.ledger import Ledger, chart, processed, receipt_for
from app.demo.mailbox import Mailbox
from app.demo.witness import Run, Witness
from app.models import Order, Reading, SensorDay


@dataclass(frozen=True)
class Stored:
    """What the application's tables hold at the end."""

    orders: int
    receipted: int
    readings: int
    counted: int
    """Readings in the days' sums: each once, or a second run has added something."""
    processed: set[str]


async def stored() -> Stored:
    """Count in the application's tables, not in the queue's."""
    async with snapshot() as session:
        orders, receipted = (await session.execute(select(func.count(), func.count(Order.receipted_at)))).one()
        readings = await session.scalar(select(func.count()).select_from(Reading)) or 0
        counted = await session.scalar(select(func.sum(SensorDay.readings))) or 0
        done = await session.execute(
            select(Reading.sensor, Reading.measured_at).where(Reading.processed_at.is_not(None))
        )
        return Stored(orders, receipted, readings, int(counted), {processed(*key) for key in done.tuples()})


def effects(rows: Stored, mailbox: Mailbox, reports: Path) -> set[str]:
    """Everything that the jobs have done, wherever it shows."""
    receipts = {receipt_for(customer) for customer in mailbox.recipients}
    charts = {chart(path.name) for path in reports.glob("*.svg")}
    return rows.processed | receipts | charts


@dataclass(frozen=True)
class Verdict:
    """`lost` and `phantom` must be empty, no job may be out of order, and each repeated run must have its reason."""

    lost: set[str]
    phantom: set[str]
    repeated: int
    """Jobs that ran more than once."""
    reasons: Counter[str]
    """Why runs had to be repeated."""
    unexplained: int
    out_of_order: set[str] = field(default_factory=set)
    """Jobs that began before the one before them, of the same sensor, had come to its end."""


def judge(ledger: Ledger, witness: Witness, seen: set[str], killed: int | None) -> Verdict:
    """`seen` are the effects found, `killed` is the process that was killed."""
    owed = set(ledger.committed.values())
    never_ended = ledger.committed.keys() - witness.ended
    reasons: Counter[str] = Counter()
    for runs in witness.runs.values():
        reasons.update(_reasons(runs, killed))
    return Verdict(
        lost={ledger.committed[job_id] for job_id in never_ended} | (owed - seen),
        phantom=(witness.runs.keys() - ledger.committed.keys()) | (seen - owed),
        repeated=sum(len(runs) > 1 for runs in witness.runs.values()),
        unexplained=reasons.pop("", 0),
        reasons=reasons,
        out_of_order={job_id for jobs in ledger.in_order.values() for job_id in _out_of_order(jobs, witness)},
    )


def _out_of_order(jobs: list[str], witness: Witness) -> Iterator[str]:
    for before, job_id in pairwise(jobs):
        ended, runs = witness.first_ended.get(before), witness.runs.get(job_id)
        if runs and (ended is None or min(run.began for run in runs) < ended):
            yield job_id


def _reasons(runs: list[Run], killed: int | None) -> list[str]:
    """Why each run but one had to be repeated; "" where nothing says why."""
    reasons = [_reason(run, killed) for run in runs]
    # One run is the one that counts: best one that nothing stood in the way of, else one that came to its end.
    counts = min(range(len(runs)), key=lambda n: (reasons[n] != "", runs[n].outcome != "ended"))
    return reasons[:counts] + reasons[counts + 1 :]


def _reason(run: Run, killed: int | None) -> str:
    if run.outcome not in (None, "ended"):
        return run.outcome.removeprefix("raised:")
    if run.process == killed:
        return "killed"  # even if it ended: that may not have been written down in time
    return "cut off" if run.outcome is None else ""
