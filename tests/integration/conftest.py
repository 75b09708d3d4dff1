"""Drivers of the tests' own, beside whatever is tested, and a user of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import make_url, text

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.redis.jobs import blocking_claim
from tests.servers import sql
from tests.support.even_costs import EvenCosts


@pytest.fixture(autouse=True)
def even_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim is put off because statements take long on this machine. Tests of that have a fixture of this name."""
    monkeypatch.setattr("outbox.drivers.database.claim_scan.cursors.ScanCost", EvenCosts)


@pytest.fixture
def timeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever outbox does takes no time. Statements that took long, on a machine that is busy for a moment, are
    followed by others that find out why: nothing of that is to be counted."""
    monkeypatch.setattr("outbox.clock.now", lambda: 1_000.0)


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    """Sees every row, as a database client would."""
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    """The driver under test."""
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def other(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    """The driver of another process."""
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url)
    yield driver
    await driver.close()


@pytest.fixture
def lasting_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an idle worker leaves pending on Redis lasts for a minute, not for two seconds: a job that a busy machine
    stores later would be announced to all workers."""
    monkeypatch.setattr(blocking_claim, "PENDING_SECONDS", 60.0)
    monkeypatch.setattr(blocking_claim, "SHARE_OF_LEASE", 2.0)


@pytest.fixture
def limited_url(migrated_url: str) -> Iterator[str]:
    """The database, for a user who may do everything with it and nothing else, and who has not connected yet."""
    url = make_url(migrated_url)
    with sql.connection(migrated_url) as connection:
        connection.execute(text("CREATE USER limited@'%' IDENTIFIED BY 'secret'"))
        connection.execute(text(f"GRANT ALL ON {url.database}.* TO limited@'%'"))
    yield url.set(username="limited", password="secret").render_as_string(hide_password=False)
    with sql.connection(migrated_url) as connection:
        connection.execute(text("DROP USER limited@'%'"))
