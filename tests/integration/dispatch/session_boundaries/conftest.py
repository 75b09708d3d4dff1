"""The application of these tests is a synchronous one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.support.orders import Base, sync_engine


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    engine = sync_engine(migrated_url)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()
