"""`outbox rekey`: what is stored of encrypted jobs, encrypted with the first key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from redis import Redis

from outbox import dispatch, dispatch_batch, dispatch_chain, retry, schedules
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import RewrittenTexts
from outbox.encrypted_jobs import Rekeying
from outbox.encryption import check_key, key_id, keyring
from outbox.events import JobSettled
from outbox.settlement import Outcome
from tests.integration.encryption.encrypted_job_classes import KEY, NEXT, Open, Secret, UniqueSecret, ran
from tests.integration.encryption.test_encrypted_jobs import CARD, stored
from tests.support.commands import Ran, run
from tests.support.embedded_worker import working
from tests.support.row_locks import locked

OLD_ID, NEW_ID = key_id(check_key(KEY)), key_id(check_key(NEXT))


def keys_in(held: str) -> set[str]:
    return set(re.findall(r"outbox1\.([0-9a-f]{8})", held))


async def rekey(url: str, monkeypatch: pytest.MonkeyPatch, *arguments: str, keys: str = f"{NEXT},{KEY}") -> Ran:
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", keys)
    return await run(url, "rekey", *arguments)


async def test_everything_gets_the_new_key(
    migrated_url: str, database: DatabaseDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = await dispatch(Secret(card=CARD, fails=2))
    async with working(migrated_url) as worker:
        await worker.event(JobSettled, 2)
    await dispatch(Secret(card="plain"), encrypt=False)
    await dispatch(UniqueSecret(card=CARD, amount=1))
    await dispatch(UniqueSecret(card=CARD, amount=2))
    await dispatch_chain([Open(), Secret(card="of a chain")], catch=Secret(card="caught"))
    await dispatch_batch([Open()], then=Secret(card="then"))
    await schedules.add("pay", "@yearly", Secret(card="scheduled"))
    assert keys_in(stored(migrated_url)) == {OLD_ID}
    ended = await rekey(migrated_url, monkeypatch, "--json")
    assert ended.code == 0, ended.out
    assert ended.document["busy"] == 0
    assert ended.document["rekeyed"] == 7
    assert keys_in(stored(migrated_url)) == {NEW_ID}
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", NEXT)
    again = await rekey(migrated_url, monkeypatch, keys=NEXT)
    assert (again.code, again.out) == (0, "Encrypted 0 rows with the first key.\n")
    shown = (await run(migrated_url, "failed", str(failing), "--decrypt")).out
    assert f"the card {CARD} was refused" in shown
    assert await retry(failing)
    ran.clear()
    async with working(migrated_url) as worker:
        await worker.event(JobSettled, 8)
    assert {event.outcome for event in worker.of(JobSettled)} == {Outcome.COMPLETED, Outcome.RETRIED, Outcome.FAILED}
    assert (CARD, 2) in ran
    assert {"of a chain", "then", "plain"} <= {str(card) for card, _ in ran}


async def test_it_goes_on_after_an_interruption(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await dispatch(Secret(card=str(number)))
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", f"{NEXT},{KEY}")
    await dispatch(Secret(card="new"))
    ended = await rekey(migrated_url, monkeypatch)
    assert ended.out == "Encrypted 3 rows with the first key.\n"


async def test_what_no_key_reads_is_left_and_told(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await dispatch(Secret(card=CARD))
    before = stored(migrated_url)
    ended = await rekey(migrated_url, monkeypatch, keys=NEXT)
    assert ended.code == 1
    assert f"1 text left as they are: it was encrypted with the key {OLD_ID}" in ended.err
    assert stored(migrated_url) == before
    monkeypatch.delenv("OUTBOX_ENCRYPTION_KEYS")
    ended = await run(migrated_url, "rekey")
    assert ended.code == 2
    assert "there is no key" in ended.err


SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_it_waits_for_no_lock(migrated_url: str, database: DatabaseDriver) -> None:
    """A row that a transaction holds is left, and taken when that has ended."""
    job_id = await dispatch(Secret(card=CARD))
    await dispatch(Secret(card="free"))
    rekeying = Rekeying(keyring((NEXT, KEY)))
    async with locked(database, "queue_jobs", job_id):
        assert await database.encrypted_texts.rewrite(rekeying) == RewrittenTexts(rewritten=1, busy=1)
    assert await database.encrypted_texts.rewrite(rekeying) == RewrittenTexts(rewritten=1, busy=0)
    assert keys_in(stored(migrated_url)) == {NEW_ID}


@pytest.fixture
def in_redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def held_in(client: Redis) -> str:
    hashes = [key for key in client.scan_iter("outbox:*") if client.type(key) == b"hash"]
    return "\n".join(str(client.hgetall(key)) for key in hashes)


@pytest.mark.redis
@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
async def test_redis(migrated_url: str, redis_url: str, in_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    failing = await dispatch(Secret(card=CARD, fails=2), connection="redis")
    async with working(migrated_url, redis_url=redis_url, connection="redis") as worker:
        await worker.event(JobSettled, 2)
    for number in range(250):
        await dispatch(Secret(card=str(number)), connection="redis")
    assert keys_in(held_in(in_redis)) == {OLD_ID}
    ended = await rekey(migrated_url, monkeypatch)
    assert (ended.code, ended.out) == (0, "Encrypted 251 rows with the first key.\n")
    assert keys_in(held_in(in_redis)) == {NEW_ID}
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", NEXT)
    assert await retry(failing, connection="redis")
    ran.clear()
    async with working(migrated_url, redis_url=redis_url, connection="redis") as worker:
        await worker.event(JobSettled, 252)
    assert len({card for card, _ in ran}) == 252
