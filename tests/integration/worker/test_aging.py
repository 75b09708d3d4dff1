"""`--aging`: low priorities that have waited for long."""

from __future__ import annotations

from pathlib import Path

from outbox.drivers.database import DatabaseDriver
from outbox.envelope import serialize
from outbox.options import JobOptions
from tests.conformance.jobs import envelope
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers


async def test_a_claim_takes_the_lowest_priority_that_has_waited(database: DatabaseDriver) -> None:
    jobs = [envelope(priority=priority) for priority in (0, 5, 5, 9)]
    await database.jobs.insert([*jobs, envelope(priority=9, delay=60), envelope(queue="other", priority=9)])
    assert await database.aging.claim(["default"], 10, 30, 3600.0) == []
    lowest = await database.aging.claim(["default"], 10, 30, 0.0)
    assert [claim.fence.job_id for claim in lowest] == [jobs[3].id]
    next_lowest = await database.aging.claim(["empty", "default"], 1, 30, 0.0)
    assert [claim.fence.job_id for claim in next_lowest] == [jobs[1].id]


async def test_one_claim_in_ten_of_a_worker_takes_it(
    database: DatabaseDriver, migrated_url: str, tmp_path: Path
) -> None:
    urgent = [serialize(Counted(number=number), JobOptions(priority=0)) for number in range(40)]
    await database.jobs.insert([*urgent, serialize(Counted(number=99), JobOptions(priority=9))])
    workers = Workers(migrated_url, tmp_path)
    worker = await workers.start("--concurrency", "1", "--aging", "0.001", "--stop-when-empty")
    assert await worker.exit_code() == 0
    started = [run.number for run in workers.oracle.runs("begin")]
    await workers.close()
    assert len(started) == 41
    assert started.index(99) <= 12
