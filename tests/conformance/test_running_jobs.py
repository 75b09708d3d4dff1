"""What a worker says of the jobs that it runs, for those who look at its row."""

from __future__ import annotations

from dataclasses import replace

from outbox.drivers.base import Driver
from outbox.drivers.values import RUNNING_JOBS_SHOWN, RunningJob
from outbox.ids import new_job_id
from tests.conformance.test_looking import worker


async def test_a_heartbeat_names_what_runs(driver: Driver, other: Driver) -> None:
    jobs = tuple(RunningJob(new_job_id(), "app.Receipt", "mail", 12.5 * number) for number in range(3))
    status = replace(worker("mail", running=3), jobs=jobs)
    await driver.workers.heartbeat(status)
    [seen] = await other.workers.all()
    assert seen.jobs == jobs
    await driver.workers.heartbeat(replace(status, running=0, jobs=()))
    [seen] = await other.workers.all()
    assert (seen.running, seen.jobs) == (0, ())


async def test_as_many_as_are_shown_fit_into_a_row(driver: Driver) -> None:
    jobs = tuple(RunningJob(new_job_id(), "x" * 255, "q" * 64, 1e6) for _ in range(RUNNING_JOBS_SHOWN))
    await driver.workers.heartbeat(replace(worker("mail"), jobs=jobs))
    [seen] = await driver.workers.all()
    assert seen.jobs == jobs
