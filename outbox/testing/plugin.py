"""Fixtures for pytest, which finds them where outbox is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outbox.testing import Clock, Drain, Fake
from outbox.testing.fake import fake_for_all_tasks
from outbox.testing.travel import clock


@pytest.fixture
def outbox_fake() -> Iterator[Fake]:
    """Dispatches are recorded instead of stored, to be asserted: `outbox.testing.Fake`."""
    with fake_for_all_tasks() as recorder:
        yield recorder


@pytest.fixture
def outbox_drain() -> Drain:
    """Runs the jobs that are due: ``await outbox_drain()``, or ``outbox_drain.sync()``."""
    return Drain()


@pytest.fixture
def outbox_clock() -> Iterator[Clock]:
    """What the database takes for now, in this process: ``outbox_clock.travel(hours=1)``. Reset after the test."""
    yield clock
    clock.reset()
