"""`outbox jobs --state running`: what the workers named in their last heartbeats."""

from __future__ import annotations

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import RunningJob, WorkerStatus
from outbox.ids import new_token
from outbox.settlement import Settlement
from tests.conformance.jobs import claim_one, envelope, envelopes
from tests.support.commands import run


async def test_running_jobs_are_those_of_the_heartbeats_that_are_still_held(
    database: DatabaseDriver, migrated_url: str
) -> None:
    await database.jobs.insert([*envelopes(2, queue="mail"), envelope(queue="slow"), *envelopes(3)])
    held = [await claim_one(database, queue) for queue in ("mail", "mail", "slow")]
    jobs = tuple(RunningJob(claim.fence.job_id, claim.name, claim.queue, 1.0) for claim in held)
    await database.workers.heartbeat(WorkerStatus(new_token(), "one", "host", 1, "mail", 20, 3, 0, 0, jobs=jobs))
    await database.jobs.settle([Settlement.completed(held[0].fence)])

    async def ids(*arguments: str) -> list[str]:
        ran = await run(migrated_url, "jobs", "--state", "running", "--json", *arguments)
        return [job["id"] for job in ran.document["jobs"]]

    assert await ids() == [str(held[1].fence.job_id), str(held[2].fence.job_id)]
    assert await ids("--queue", "slow") == [str(held[2].fence.job_id)]
    assert await ids("--limit", "1") == [str(held[1].fence.job_id)]
    assert await ids("--queue", "default") == []
    ran = await run(migrated_url, "jobs", "--state", "running", "--queue", "default")
    assert ran.out == "No such jobs.\n"
    ran = await run(migrated_url, "jobs", "--state", "running", "--after", "mail:5:0:x")
    assert (ran.code, "one page" in ran.err) == (2, True)
