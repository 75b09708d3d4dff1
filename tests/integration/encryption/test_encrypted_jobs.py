"""Encrypted jobs: what the stores keep of them, what a worker makes of it, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

import outbox.sync
from outbox import FailedJob, Job, dispatch, dispatch_batch, dispatch_chain, retry, schedules
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.encrypted_jobs import open_payload
from outbox.encryption import keyring
from outbox.errors import ConfigurationError, DecryptionFailed, InvalidOption
from outbox.events import JobSettled
from outbox.settlement import Outcome
from outbox.testing import fake, perform
from tests.integration.encryption.encrypted_job_classes import KEY, NEXT, Open, Secret, UniqueSecret, ran
from tests.servers import sql
from tests.support.commands import run
from tests.support.embedded_worker import Embedded, working
from tests.support.orders import async_engine

CARD = "4111-1111-1111"
TABLES = ("queue_jobs", "queue_failed_jobs", "queue_unique_jobs", "queue_batches", "queue_schedules")


def stored(url: str) -> str:
    """Everything that the tables hold."""
    with sql.connection(url) as connection:
        return "\n".join(str(row) for name in TABLES for row in connection.execute(text(f"SELECT * FROM {name}")))


def execute(url: str, statement: str, **parameters: Any) -> None:
    with sql.connection(url) as connection:
        connection.execute(text(statement), parameters)


async def ends(worker: Embedded, count: int) -> list[Outcome]:
    await worker.event(JobSettled, count)
    return [event.outcome for event in worker.of(JobSettled)]


async def test_a_job_is_stored_encrypted_and_runs(migrated_url: str) -> None:
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        await dispatch(Secret(card=CARD), session=session)
    await engine.dispose()
    await dispatch(Secret(card=CARD))
    await asyncio.to_thread(outbox.sync.dispatch, Secret(card=CARD))
    await dispatch(Open(card=CARD), encrypt=True)
    await dispatch(Secret(card="4000-0000"), encrypt=False)
    held = stored(migrated_url)
    assert CARD not in held
    assert "4000-0000" in held
    assert len(re.findall(r"outbox1\.", held)) == 4
    async with working(migrated_url) as worker:
        assert await ends(worker, 5) == [Outcome.COMPLETED] * 5
    assert sorted(str(value) for value, _ in ran) == ["4000-0000", CARD, CARD, CARD, "open"]


async def test_errors_are_kept_encrypted(migrated_url: str, database: DatabaseDriver) -> None:
    async with working(migrated_url) as worker:
        job_id = await dispatch(Secret(card=CARD, fails=2))
        assert await ends(worker, 2) == [Outcome.RETRIED, Outcome.FAILED]
        told = [event.failure for event in worker.of(JobSettled)]
    assert [failure.summary for failure in told] == ["ValueError: encrypted"] * 2
    assert ran[-1] == ("failed", f"the card {CARD} was refused"), "the hook gets the error itself"
    assert CARD not in stored(migrated_url)
    assert CARD not in str(told)
    shown = (await run(migrated_url, "failed", str(job_id))).out
    assert "ValueError: encrypted" in shown
    assert "encrypted; --decrypt shows it" in shown
    assert "outbox1." not in shown
    shown = (await run(migrated_url, "failed", str(job_id), "--decrypt")).out
    assert f"ValueError: the card {CARD} was refused" in shown
    assert "in handle" in shown
    assert f'"card": "{CARD}"' in shown
    document = (await run(migrated_url, "show", str(job_id), "--json")).document["job"]
    assert document["encrypted"] is True
    assert CARD not in json.dumps(document)
    document = (await run(migrated_url, "show", str(job_id), "--json", "--decrypt")).document["job"]
    assert CARD in document["payload"]
    assert "encrypted" in (await run(migrated_url, "failed")).out
    assert await retry(job_id)
    async with working(migrated_url) as worker:
        assert await ends(worker, 2) == [Outcome.RETRIED, Outcome.FAILED]


async def test_waiting_jobs_are_shown_as_encrypted(migrated_url: str) -> None:
    job_id = await dispatch(Secret(card=CARD))
    listed = (await run(migrated_url, "jobs")).out
    assert "encrypted" in listed
    assert "outbox1." not in listed
    assert "encrypted; --decrypt shows it" in (await run(migrated_url, "show", str(job_id))).out
    assert f'"card": "{CARD}"' in (await run(migrated_url, "show", str(job_id), "--decrypt")).out


async def test_an_unknown_key_fails_the_job_and_keeps_it(
    migrated_url: str, database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await dispatch(Secret(card=CARD))
    waiting = await database.jobs.get(job_id)
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", NEXT)
    async with working(migrated_url) as worker:
        assert await ends(worker, 1) == [Outcome.FAILED], "at once: another attempt has no other keys"
    failed = await database.failed.get(job_id)
    assert waiting is not None
    assert failed is not None
    assert json.loads(failed.payload) == json.loads(waiting.payload)
    assert failed.failure.type == "outbox.errors.DecryptionFailed"
    assert "OUTBOX_ENCRYPTION_KEYS does not have" in failed.failure.message
    shown = await run(migrated_url, "show", str(job_id), "--decrypt")
    assert shown.code == 1
    assert "OUTBOX_ENCRYPTION_KEYS does not have" in shown.err
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", f"{NEXT},{KEY}")
    assert await retry(job_id)
    async with working(migrated_url) as worker:
        assert await ends(worker, 1) == [Outcome.COMPLETED]
    assert ran == [(CARD, None)]


@pytest.mark.parametrize("change", ["payload of another job", "name", "one letter"])
async def test_what_was_moved_or_changed_is_refused(
    migrated_url: str, database: DatabaseDriver, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Open, "encrypt", True)
    first = await dispatch(Secret(card=CARD))
    second = await dispatch(Secret(card="4000-0000"), queue="other")
    job = await database.jobs.get(second)
    assert job is not None
    if change == "payload of another job":
        execute(migrated_url, "UPDATE queue_jobs SET payload = :p WHERE id = :i", p=job.payload, i=first.bytes)
    elif change == "name":
        execute(migrated_url, "UPDATE queue_jobs SET name = 'tests.encrypted.Open' WHERE id = :i", i=first.bytes)
    else:
        job = await database.jobs.get(first)
        assert job is not None
        place = job.payload.rindex('"') - 5
        changed = job.payload[:place] + ("A" if job.payload[place] != "A" else "B") + job.payload[place + 1 :]
        execute(migrated_url, "UPDATE queue_jobs SET payload = :p WHERE id = :i", p=changed, i=first.bytes)
    async with working(migrated_url) as worker:
        assert await ends(worker, 1) == [Outcome.FAILED]
        failure = worker.of(JobSettled)[0].failure
    assert failure.type == "outbox.errors.DecryptionFailed"
    assert ("was changed since" if change == "one letter" else "belongs to another job") in failure.message
    assert ran == []


async def test_a_job_on_a_connection_of_another_name_is_refused(migrated_url: str) -> None:
    await dispatch(Secret(card=CARD))
    driver = DatabaseDriver(migrated_url, name="elsewhere")
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    await driver.close()
    keys = keyring((KEY,))
    job_id = claim.fence.job_id
    assert CARD in open_payload(keys, claim.payload, claim.headers, claim.name, job_id, "database")
    with pytest.raises(DecryptionFailed, match="moved to another connection"):
        open_payload(keys, claim.payload, claim.headers, claim.name, job_id, "elsewhere")


async def test_unique_jobs_meet_by_a_hash_with_the_key(
    migrated_url: str, database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await dispatch(UniqueSecret(card=CARD, amount=1))
    second = await dispatch(UniqueSecret(card=CARD, amount=2))
    assert (second, second.created) == (first, False)
    assert CARD not in stored(migrated_url)
    with monkeypatch.context() as patched:
        patched.setattr(UniqueSecret, "encrypt", False)
        assert (await dispatch(UniqueSecret(card=CARD), queue="plain")).created, "its hash is not a plain one"
    async with working(migrated_url) as worker:
        assert await ends(worker, 1) == [Outcome.COMPLETED]
    assert ran == [(CARD, 2)], "what has replaced the payload can be read by the job that it replaced"


async def test_results_in_a_chain_are_kept_encrypted(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Open, "queue", "later")
    await dispatch_chain([Secret(card=CARD), Open(), Secret(card="4000-0000", fails=2)], catch=Open(card="9"))
    held = stored(migrated_url)
    assert "4000-0000" not in held
    async with working(migrated_url) as worker:
        await ends(worker, 1)
    held = stored(migrated_url)
    assert "tests.encrypted.Open" in held
    assert "paid with" not in held
    async with working(migrated_url, queue="default,later") as worker:
        assert await ends(worker, 4) == [Outcome.COMPLETED, Outcome.RETRIED, Outcome.FAILED, Outcome.COMPLETED]
    assert ran[1] == ("open", f"paid with {CARD}")
    assert ran[2:4] == [("4000-0000", None)] * 2
    assert ran[-1][1]["error"] == "ValueError: encrypted"
    assert "4000-0000" not in stored(migrated_url)


async def test_batches_and_schedules_dispatch_encrypted_jobs(migrated_url: str) -> None:
    await schedules.add("pay", None, Secret(card="4001-0000"), every="1s")  # a running one would look a while later
    async with working(migrated_url, sleep=0.3) as worker:
        await dispatch_batch([Secret(card=CARD)], then=Secret(card="4000-0000"))
        while "4001-0000" not in str(ran) or "4000-0000" not in str(ran):
            await ends(worker, len(worker.of(JobSettled)) + 1)
        assert CARD not in (held := stored(migrated_url))
        assert "4000-0000" not in held
        assert "4001-0000" not in held
        await schedules.remove("pay")
    assert {event.outcome for event in worker.of(JobSettled)} == {Outcome.COMPLETED}


async def test_without_a_key_nothing_is_dispatched(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTBOX_ENCRYPTION_KEYS")
    with pytest.raises(ConfigurationError, match="Secret is to be encrypted, and there is no key: set OUTBOX_ENCR"):
        await dispatch(Secret(card=CARD))
    for wrong in ("secret", "c2hvcnQ="):
        monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", f"{KEY},{wrong}")
        with pytest.raises(ConfigurationError, match="32 random bytes in base64") as caught:
            await dispatch(Secret(card=CARD))
        assert wrong not in str(caught.value)
        assert KEY not in str(caught.value)
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", KEY)
    with pytest.raises(InvalidOption, match="encrypt is True or False"):
        await dispatch(Secret(card=CARD), encrypt="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="encrypt is True or False"):
        type("Wrong", (Job,), {"encrypt": 1, "__module__": __name__})
    assert CARD not in stored(migrated_url)


def lines_of(program: str) -> list[str]:
    settings = {"OUTBOX_ENCRYPTION_KEYS": KEY, "DATABASE_URL": "sqlite+aiosqlite:///none.db"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
def test_without_the_library() -> None:
    assert lines_of(WITHOUT_LIBRARY) == [
        "ConfigurationError",
        "tests.encrypted.Secret is to be encrypted: encrypted jobs need the package cryptography: pip install "
        "'outbox-queue[encrypt]'",
    ]


WITHOUT_LIBRARY = """
import asyncio, sys
sys.modules["cryptography"] = None
from outbox import dispatch
from tests.integration.encryption.encrypted_job_classes import Secret
try:
    asyncio.run(dispatch(Secret(card="1")))
except Exception as error:
    print(type(error).__name__)
    print(error)
"""


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
def test_a_worker_loads_the_library_when_it_needs_it() -> None:
    assert lines_of(LOADED) == ["False", "True"]


LOADED = """
import asyncio, sys
import outbox.work, outbox.runtime.worker
from outbox import Settings
from outbox.encryption import keyring
from tests.integration.encryption.encrypted_job_classes import Secret
keys = keyring(Settings().encryption_keys)
print("cryptography" in sys.modules)
keys.encrypt("text", "context")
print("cryptography" in sys.modules)
"""


async def test_tests_need_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTBOX_ENCRYPTION_KEYS")
    with fake() as dispatched:
        await dispatch(Secret(card=CARD))
        dispatched.assert_dispatched(Secret, card=CARD)
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", KEY)
    assert (await perform(Secret(card=CARD))).completed


@pytest.mark.redis
@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
async def test_encrypted_jobs_on_redis(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    engine = async_engine(migrated_url)
    async with AsyncSession(engine) as session, session.begin():
        await dispatch(Secret(card=CARD), session=session, connection="redis")
    await engine.dispose()
    await dispatch(UniqueSecret(card=CARD, amount=1), connection="redis")
    assert CARD not in stored(migrated_url)
    job_id = await dispatch(Secret(card=CARD, fails=2), connection="redis", queue="later")
    job = await redis.jobs.get(job_id)
    assert job is not None
    assert CARD not in job.payload
    async with working(migrated_url, redis_url=redis_url, connection="redis", queue="default,later") as worker:
        outcomes = await ends(worker, 4)
    assert sorted(outcomes) == [Outcome.COMPLETED, Outcome.COMPLETED, Outcome.FAILED, Outcome.RETRIED]
    failed = await outbox.find(job_id, connection="redis")
    assert isinstance(failed, FailedJob)
    assert failed.failure.summary == "ValueError: encrypted"
    assert CARD not in repr(failed)
