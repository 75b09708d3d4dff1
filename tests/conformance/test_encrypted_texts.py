"""Texts that hold something encrypted are found wherever a store keeps them, and given other ones."""

from __future__ import annotations

import json

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import FailedJob, RewrittenTexts
from outbox.encryption import MARK
from outbox.ids import new_job_id
from outbox.settlement import ENCRYPTED, Failure, Settlement
from tests.conformance.jobs import claim_one, envelope

OLD, NEW = f"{MARK}old", f"{MARK}new"


def renamed(text: str) -> str:
    return text.replace(OLD, NEW)


async def failed_jobs(driver: Driver) -> list[FailedJob]:
    while not (found := await driver.failed.page()):
        pass
    return found


async def test_live_and_failed_jobs_get_other_texts(driver: DatabaseDriver | RedisDriver, backend: str) -> None:
    await driver.jobs.insert([envelope(queue="bad", payload=f'{{"encrypted": "{OLD}"}}')])
    claim = await claim_one(driver, "bad")
    await driver.jobs.settle([Settlement.failed(claim.fence, Failure("ValueError", ENCRYPTED, OLD))])
    [failed] = await failed_jobs(driver)
    plain = envelope(1, queue="plain", payload='{"text": "ü \\ud83d\\ude00"}')
    waiting = envelope(payload=f'{{"encrypted": "{OLD}", "text": "ü"}}')._replace(headers=f'{{"a": "{OLD}"}}')
    await driver.jobs.insert([plain, *(waiting._replace(id=new_job_id()) for _ in range(150))])
    before = await driver.jobs.get(plain.id)
    # A database that keeps the failed jobs of Redis has a driver of its own for it.
    elsewhere = backend == "redis with a database"
    assert await driver.encrypted_texts.rewrite(renamed) == RewrittenTexts(150 if elsewhere else 151)
    [failed] = await failed_jobs(driver)
    assert failed.failure.encrypted
    assert (OLD in failed.payload + failed.failure.traceback) is elsewhere
    jobs = await driver.jobs.list_jobs("default", 200)
    assert len(jobs) == 150
    assert all(json.loads(job.payload) == {"encrypted": NEW, "text": "ü"} for job in jobs)
    assert all(json.loads(job.headers) == {"a": NEW} for job in jobs)
    assert await driver.jobs.get(plain.id) == before
    assert (await driver.encrypted_texts.rewrite(renamed)) == RewrittenTexts()
    assert await driver.failed.retry([failed.id]) == [failed.id]
    assert await claim_one(driver, "bad")
