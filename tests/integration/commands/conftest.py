"""Commands run in an empty folder, beside a driver of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver


@pytest.fixture
async def driver(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    monkeypatch.chdir(tmp_path)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
