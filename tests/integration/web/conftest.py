"""A dashboard over the database of the test, and a viewer who may do everything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from outbox.settings import Settings
from outbox.web import dashboard
from tests.support.dashboards import browser, mounted, signed_in


@pytest.fixture(autouse=True)
def long_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page whose test says nothing else waits for a store as long as a busy machine needs."""
    assert dashboard.__kwdefaults__ is not None
    monkeypatch.setitem(dashboard.__kwdefaults__, "time_limit", 60.0)


@pytest.fixture
def settings(migrated_url: str) -> Settings:
    return Settings(database_url=migrated_url)


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(mounted(dashboard(signed_in(), settings=settings))) as client:
        yield client
