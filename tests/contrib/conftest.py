"""What tests of integrations share: a store of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver


@pytest.fixture
async def driver(backend: str, request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    driver: Driver
    if backend == "redis":
        driver = RedisDriver(request.getfixturevalue("redis_url"))
    else:
        driver = DatabaseDriver(request.getfixturevalue("migrated_url"))
    yield driver
    await driver.close()
