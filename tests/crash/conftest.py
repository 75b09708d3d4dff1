"""The worker processes of a crash test. They end with it, however it ends: none takes jobs of the tests after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.worker_processes import Workers


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """The test says whose jobs they run: ``workers.modules``."""
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()
