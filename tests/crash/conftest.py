"""The worker processes of a crash test. They end with it, however it ends: none takes jobs of the tests after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outbox.drivers.database import DatabaseDriver
from tests.crash.harness import DatabaseHarness
from tests.support.worker_processes import Workers


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """The test says whose jobs they run: ``workers.modules``."""
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


@pytest.fixture
async def harness(migrated_url: str, tmp_path: Path) -> AsyncIterator[DatabaseHarness]:
    harness = DatabaseHarness(migrated_url, tmp_path)
    yield harness
    await harness.close()


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    """Sees every row, as a database client would."""
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
