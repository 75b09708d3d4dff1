"""An executor for the tests of attempts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.middleware.thread_call import Threads
from tests.unit.runtime.attempts import Bench


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads()
    yield threads
    await threads.stop()


@pytest.fixture
def bench(threads: Threads) -> Bench:
    return Bench(threads)
