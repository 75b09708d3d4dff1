"""Worker processes, and the store that they drain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.worker.worker_queue import Queue
from tests.support.worker_processes import Workers


@pytest.fixture
async def workers(migrated_url: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


@pytest.fixture
async def queue(migrated_url: str) -> AsyncIterator[Queue]:
    queue = Queue(migrated_url)
    yield queue
    await queue.close()
