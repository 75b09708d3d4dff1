"""Processes that relay what they commit, and sessions that no relay could serve."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import dispatch
from outbox.client_state import default_client
from outbox.drivers.redis import RedisDriver
from outbox.errors import ConfigurationError, SessionUnusable
from outbox.relay.thread import RelayThreads
from tests.integration.relay.relayed import arrived, committed
from tests.servers import databases
from tests.support.orders import Receipt, async_engine, sync_engine

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("configured")]


@pytest.fixture
def relay_loop(monkeypatch: pytest.MonkeyPatch, configured: None) -> None:
    """This process relays what it commits, as applications do."""
    monkeypatch.undo()


async def test_the_process_that_dispatched_moves_its_jobs_at_once(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch, relay_loop: None
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    await committed(migrated_url, 1)
    assert await arrived(redis) == [1]

    def work() -> None:
        engine = sync_engine(migrated_url)
        with Session(engine) as session:
            outbox.sync.dispatch(Receipt(order_id=2), session=session, connection="redis")
            session.commit()
        engine.dispose()

    await asyncio.to_thread(work)
    assert await arrived(redis) == [2]
    default_client.part(RelayThreads).stop()


async def test_a_delayed_job_is_in_redis_before_its_delay_has_ended(
    migrated_url: str, redis_url: str, redis: RedisDriver, monkeypatch: pytest.MonkeyPatch, relay_loop: None
) -> None:
    """Redis wakes the workers when it is due; a row would wait until somebody looks."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    await committed(migrated_url, 1, delay=600)
    async with asyncio.timeout(20):
        while not (counts := await redis.queues.counts()):
            await asyncio.sleep(0.01)
    assert [(each.queue, each.ready, each.delayed) for each in counts] == [("mail", 0, 1)]
    default_client.part(RelayThreads).stop()


async def test_jobs_of_a_process_that_was_configured_anew_are_moved_from_its_new_database(
    migrated_url: str, redis_url: str, redis: RedisDriver, tmp_path: Path, relay_loop: None
) -> None:
    (tmp_path / "other").mkdir()
    other_url = databases.fresh_file(tmp_path / "other")
    databases.create_tables(other_url, outbox.metadata)
    for number, url in enumerate((migrated_url, other_url, migrated_url)):
        outbox.configure(database_url=url, redis_url=redis_url)
        await committed(url, number)
        assert await arrived(redis) == [number]
    default_client.part(RelayThreads).stop()
    outbox.configure()


@pytest.fixture
def elsewhere(migrated_url: str, tmp_path: Path) -> str:
    """Another database, with which these tests need not connect."""
    url = make_url(migrated_url)
    if url.get_backend_name() != "sqlite":
        return url.set(database="elsewhere").render_as_string(hide_password=False)
    (tmp_path / "elsewhere.db").touch()
    return url.set(database=str(tmp_path / "elsewhere.db")).render_as_string()


async def test_a_session_of_a_database_in_which_no_relay_looks_is_refused(elsewhere: str) -> None:
    engine = async_engine(elsewhere)
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionUnusable, match="DATABASE_URL"):
            await dispatch(Receipt(order_id=1), session=session, connection="redis")
        assert not session.new, "nothing may be written after a refusal"
        await dispatch(Receipt(order_id=2), session=session, connection="database")
        assert session.new, "the jobs of that database itself are its own business"
    await engine.dispose()


async def test_without_a_database_beside_redis_a_session_is_refused(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await committed(migrated_url, 1)
