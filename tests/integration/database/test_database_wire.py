"""Statements sent past SQLAlchemy: its pool and its errors are the same, and no connection is left in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.errors import Fault, classify
from outbox.drivers.database.connection.raw_connection import RawConnection
from outbox.errors import BackendUnavailable
from tests.conformance.jobs import envelopes
from tests.servers import LocalServer, sql

ON_SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
COUNT = "SELECT COUNT(*) FROM queue_jobs"
PAUSE = "INSERT INTO queue_pauses (queue, paused_at) VALUES (%s, UTC_TIMESTAMP(6))"


@pytest.fixture(params=ON_SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url, pool_size=1)
    yield driver
    assert pool(driver).checkedout() == 0
    await driver.close()


def pool(driver: DatabaseDriver) -> Any:
    return driver.database.engine.pool


async def test_it_is_used_where_nobody_listens(driver: DatabaseDriver) -> None:
    engine = driver.database.engine
    assert RawConnection.fits(engine)
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    assert not RawConnection.fits(engine)
    await driver.jobs.insert(envelopes(1))
    assert len(await driver.jobs.claim(["default"], 1, 30)) == 1


async def test_what_is_not_committed_is_rolled_back(driver: DatabaseDriver) -> None:
    wire = RawConnection(driver.database.engine)
    with pytest.raises(ZeroDivisionError):
        async with wire:
            await wire.exec_driver_sql(PAUSE, ("a",))
            raise ZeroDivisionError
    async with RawConnection(driver.database.engine) as wire:
        await wire.exec_driver_sql(PAUSE, ("b",))
        await wire.rollback()
        await wire.exec_driver_sql(PAUSE, ("c",))
        await wire.commit()
    async with RawConnection(driver.database.engine) as wire:
        rows = await wire.exec_driver_sql("SELECT queue FROM queue_pauses", ())
        assert (list(rows), rows.rowcount) == ([("c",)], 1)
        await wire.commit()


async def test_what_the_server_refuses_is_sqlalchemys_error_and_the_connection_stays(driver: DatabaseDriver) -> None:
    async with RawConnection(driver.database.engine) as wire:
        [(first,)] = await wire.exec_driver_sql("SELECT CONNECTION_ID()", ())
        await wire.commit()
    with pytest.raises(DBAPIError, match="nothing_like_it"):
        async with RawConnection(driver.database.engine) as wire:
            await wire.exec_driver_sql(PAUSE, ("a",))
            await wire.exec_driver_sql("SELECT * FROM nothing_like_it", ())
    async with RawConnection(driver.database.engine) as wire:
        [(second,)] = await wire.exec_driver_sql("SELECT CONNECTION_ID()", ())
        [(paused,)] = await wire.exec_driver_sql("SELECT COUNT(*) FROM queue_pauses", ())
        await wire.commit()
    assert (first, paused) == (second, 0)


async def test_a_killed_connection_takes_the_whole_pool_with_it(driver: DatabaseDriver, migrated_url: str) -> None:
    with pytest.raises(DBAPIError) as lost:
        async with RawConnection(driver.database.engine) as wire:
            [(number,)] = await wire.exec_driver_sql("SELECT CONNECTION_ID()", ())
            with sql.connection(migrated_url) as connection:
                connection.execute(text(f"KILL {number}"))
            await wire.exec_driver_sql(COUNT, ())
    assert lost.value.connection_invalidated
    assert classify(lost.value) is Fault.UNREACHABLE
    await driver.jobs.insert(envelopes(1))
    assert len(await driver.jobs.claim(["default"], 1, 30)) == 1


async def test_a_call_that_is_given_up_leaves_no_connection_in_doubt(driver: DatabaseDriver) -> None:
    """Its answer would be taken for that of the next statement."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), RawConnection(driver.database.engine) as wire:
            await wire.exec_driver_sql("SELECT SLEEP(1)", ())
    async with RawConnection(driver.database.engine) as wire:
        assert list(await wire.exec_driver_sql("SELECT 'mine'", ())) == [("mine",)]
        await wire.commit()


async def test_connections_that_the_pool_does_not_keep_are_closed(driver: DatabaseDriver) -> None:
    """The pool keeps one here; the fixture of the database asks the server who is still there."""
    await driver.jobs.insert(envelopes(50))
    claims = await asyncio.gather(*(driver.jobs.claim(["default"], 5, 30) for _ in range(10)))
    assert sum(map(len, claims)) == 50


async def test_a_server_that_is_away_is_unavailable_and_one_that_is_back_is_not(local_database: LocalServer) -> None:
    driver = DatabaseDriver(local_database.url + "/mysql", pool_size=1)
    async with RawConnection(driver.database.engine) as wire:
        await wire.exec_driver_sql("SELECT 1", ())
        await wire.commit()
    local_database.kill()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await driver.jobs.claim(["default"], 1, 30)
    await asyncio.to_thread(local_database.restart)
    async with RawConnection(driver.database.engine) as wire:
        assert list(await wire.exec_driver_sql("SELECT 1", ())) == [(1,)]
        await wire.commit()
    await driver.close()
