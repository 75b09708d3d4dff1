"""`outbox limits`: what is left, and what is changed at run time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox import RateLimit, limits
from outbox.drivers.database import DatabaseDriver
from outbox.errors import ConfigurationError
from tests.support.commands import run

RateLimit("tests.pages", "2/h", burst=2)


@pytest.fixture
async def driver(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


async def test_limits_are_shown_set_and_reset(driver: DatabaseDriver, migrated_url: str) -> None:
    assert "No limits." in (await run(migrated_url, "limits")).out
    assert await limits.take("tests.pages", 2)
    assert not await limits.take("tests.pages", timeout=0)
    [shown] = (await run(migrated_url, "limits", "list", "--json")).document["limits"]
    assert (shown["name"], shown["rate"], shown["left"], shown["is_set"]) == ("tests.pages", "2/h", 0, False)
    await run(migrated_url, "limits", "set", "tests.pages", "1000/s", "--burst", "9")
    assert await limits.take("tests.pages", timeout=5)
    assert "by hand" in (await run(migrated_url, "limits")).out
    await run(migrated_url, "limits", "reset", "tests.pages")
    assert (await run(migrated_url, "limits", "reset", "tests.pages")).code == 1


async def test_an_unknown_limit_says_what_to_do(driver: DatabaseDriver) -> None:
    with pytest.raises(ConfigurationError, match="outbox limits set no-such"):
        await limits.take("no-such")
