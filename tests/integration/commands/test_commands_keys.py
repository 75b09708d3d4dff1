"""`outbox unblock`, and what `outbox jobs` and `outbox show` say of keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outbox import Job
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import RunningJob
from outbox.envelope import serialize
from outbox.ids import JobId
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one
from tests.conformance.test_looking import worker
from tests.support.commands import run


class Step(Job):
    ordering_key = "aggregate_id"
    aggregate_id: int

    async def handle(self) -> None: ...


class Named(Job):
    ordering_key = "key"
    key: str

    async def handle(self) -> None: ...


async def blocked(driver: DatabaseDriver, aggregate: int) -> tuple[JobId, JobId]:
    """The job that has failed, and one that waits."""
    jobs = [serialize(Step(aggregate_id=aggregate)) for _ in range(2)]
    await driver.jobs.insert(jobs)
    claim = await claim_one(driver)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)])
    assert await driver.jobs.claim(["default"], 10, 30) == []
    return jobs[0].id, jobs[1].id


async def test_operators_see_why_jobs_are_parked(driver: DatabaseDriver, migrated_url: str) -> None:
    failed, waits = await blocked(driver, 7)
    reason = "parked: key `aggregate:7` is blocked by a failed job, 0 ahead"
    listed = await run(migrated_url, "jobs", "--state", "parked")
    assert "parked: key" in listed.out
    document = (await run(migrated_url, "jobs", "--state", "parked", "--json")).document
    assert [job["id"] for job in document["jobs"]] == [str(waits)]
    assert document["jobs"][0]["parked"].startswith(reason)
    assert reason in (await run(migrated_url, "show", str(waits))).out
    shown = await run(migrated_url, "unblock", "--all", "--skip", "--json")
    assert shown.document["job_ids"] == [str(failed)]


async def test_jobs_are_listed_by_a_key(driver: DatabaseDriver, migrated_url: str) -> None:
    first, second, other = [serialize(Step(aggregate_id=number)) for number in (7, 7, 8)]
    await driver.jobs.insert([first, second, other])
    listed = (await run(migrated_url, "jobs", "--key", "aggregate:7", "--json")).document["jobs"]
    assert [job["id"] for job in listed] == [str(first.id), str(second.id)]
    claim = await claim_one(driver)
    running = RunningJob(claim.fence.job_id, claim.name, "default", 1.0)
    await driver.workers.heartbeat(replace(worker("default", running=1), jobs=(running,)))
    for key, expected in (("aggregate:7", [str(first.id)]), ("aggregate:8", [])):
        listed = (await run(migrated_url, "jobs", "--state", "running", "--key", key, "--json")).document["jobs"]
        assert [job["id"] for job in listed] == expected
    refused = await run(migrated_url, "jobs", "--state", "finished", "--key", "aggregate:7")
    assert (refused.code, "--key selects live jobs" in refused.err) == (2, True)


@pytest.mark.parametrize("mode", ["--retry", "--skip", "--all"])
async def test_an_operator_unblocks_a_key(driver: DatabaseDriver, migrated_url: str, mode: str) -> None:
    failed, waits = await blocked(driver, 7)
    other, _ = await blocked(driver, 8)
    listed = await run(migrated_url, "unblock", "aggregate:7", "--json")
    assert listed.document["blocked"] == {str(failed): "aggregate:7"}
    done = await run(migrated_url, "unblock", "aggregate:7", mode, "--json")
    assert (done.code, done.document["unblocked"]) == (0, ["aggregate:7"])
    assert (await claim_one(driver)).fence.job_id == (failed if mode == "--retry" else waits)
    again = await run(migrated_url, "unblock", "aggregate:7", mode)
    assert again.code == 1
    assert "no failed job blocks the key aggregate:7" in again.out
    assert list(await driver.policies.blocked_keys()) == [other]


async def test_a_key_is_unblocked_by_its_very_text(driver: DatabaseDriver, migrated_url: str) -> None:
    """The server may take texts for the same that differ by spaces at their ends, and a row has part of a long one."""
    long = "x" * 10_000
    for key in ("spaced", "spaced ", "Spaced", long):
        await driver.jobs.insert([serialize(Named(key=key))])
        claim = await claim_one(driver)
        await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)])
    for key in ("spaced", "spaced ", "Spaced", long):
        done = await run(migrated_url, "unblock", f"key:{key}", "--skip", "--json")
        assert (done.code, done.document["unblocked"]) == (0, [f"key:{key}"[:255]])


async def test_unblock_says_what_it_needs(driver: DatabaseDriver, migrated_url: str) -> None:
    for flags in (["--retry"], ["--all"], ["x", "--retry", "--skip"]):
        assert (await run(migrated_url, "unblock", *flags)).code == 2
    nothing = await run(migrated_url, "unblock")
    assert (nothing.code, nothing.out) == (0, "Nothing to do: no key is blocked.\n")


async def test_an_operator_sets_how_many_run_at_once(driver: DatabaseDriver, migrated_url: str) -> None:
    done = await run(migrated_url, "limits", "set", "shop.Charge", "5")
    assert (done.code, done.out) == (0, "At most 5 jobs of shop.Charge run at once.\n")
    [limit] = await driver.limits.list()
    assert (limit.name, limit.concurrency) == ("shop.Charge", 5)
    assert (await run(migrated_url, "limits", "set", "shop.Charge", "0")).code == 2
