"""What must hold after every crash, from the oracle and from what is left in the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import pairwise

from outbox.drivers.base import Driver
from tests.crash.application import Ledger
from tests.support.worker_processes import Oracle, Run

TICK = 0.01
"""Seconds: what the clocks of processes and of stores can tell apart."""
SLACK = 0.25
"""Seconds by which a process may be late to write down what it does, where it does not say when a lease ends."""


async def verify(driver: Driver, oracle: Oracle, ledger: Ledger, *, lease: float) -> None:
    """Nothing lost, nothing phantom, no run that the lease does not explain."""
    assert await driver.jobs.list_jobs() == []
    failed = {str(job.id) for job in await driver.failed.page(limit=10_000)}
    ended = {run.id for run in oracle.runs("end")}
    committed = {str(job_id) for job_id in ledger.committed}
    allowed = committed | {str(job_id) for job_id in ledger.unknown}
    assert committed - ended - failed == set(), "lost"
    assert {run.id for run in oracle.runs()} - allowed == set(), "phantom"
    assert failed - allowed == set(), "phantom"
    explain(oracle.runs(), lease=lease)


def explain(runs: Collection[Run], *, lease: float) -> None:
    """Each run but the first of a job must follow the end of the lease of the one before, or its being handed back."""
    by_job: defaultdict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.at):
        by_job[run.id].append(run)
    for lines in by_job.values():
        begins = [line for line in lines if line.what == "begin"]
        for before, after in pairwise(begins):
            between = [line for line in lines if before.at <= line.at <= after.at and line.pid == before.pid]
            if any(line.what == "cancelled" for line in between):
                # Handed back, or stopped because its lease was about to end.
                continue
            assert after.attempt == before.attempt + 1, f"an attempt that was not counted: {before} {after}"
            known = [line.held_until for line in between if line is not after and line.held_until]
            held_until = max(known, default=before.at + lease - SLACK)
            assert after.at >= held_until - TICK, f"a run within the lease of another: {before} {after}, {held_until}"
