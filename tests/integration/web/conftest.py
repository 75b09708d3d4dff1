"""A dashboard over the database of the test, and a viewer who may do everything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from outbox.drivers.database import DatabaseDriver
from outbox.settings import Settings
from outbox.web import dashboard
from tests.support.dashboards import browser, mounted, signed_in


@pytest.fixture
def settings(migrated_url: str) -> Settings:
    return Settings(database_url=migrated_url)


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(mounted(dashboard(signed_in(), settings=settings, time_limit=30))) as client:
        yield client
