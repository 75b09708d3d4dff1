"""Drivers of the tests' own, beside whatever is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver


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
async def redis(redis_url: str) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(redis_url)
    yield driver
    await driver.close()
