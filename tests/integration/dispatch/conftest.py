"""An application beside the tests: its engines, its sessions, and a driver that sees every row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

import outbox
from tests.support.orders import Base, async_engine, sync_engine


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(migrated_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine)


@pytest.fixture
def sync(migrated_url: str, engine: AsyncEngine) -> Iterator[Engine]:
    engine_ = sync_engine(migrated_url)
    yield engine_
    engine_.dispose()


@pytest.fixture
def statements(engine: AsyncEngine) -> list[str]:
    """Every statement that the application's engine sends, from now on."""
    sent: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    return sent


@pytest.fixture
async def configured(migrated_url: str) -> AsyncIterator[None]:
    outbox.configure(database_url=migrated_url)
    yield
    await outbox.disconnect()
    outbox.configure()
