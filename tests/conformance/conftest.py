"""What every driver is tested with. A new driver is added to `driver_factory`, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver

DriverFactory = Callable[[], Driver]


@pytest.fixture
async def driver_factory(migrated_url: str) -> AsyncIterator[DriverFactory]:
    """Makes drivers on one empty store, as so many processes would have them, and closes them."""
    opened: list[DatabaseDriver] = []

    def make() -> Driver:
        opened.append(DatabaseDriver(migrated_url))
        return opened[-1]

    yield make
    leaked = [driver for driver in opened if driver._database.engine.pool.checkedout()]  # type: ignore[attr-defined]
    for driver in opened:
        await driver.close()
    assert not leaked, "a connection was not given back to its pool"


@pytest.fixture
def driver(driver_factory: DriverFactory) -> Driver:
    return driver_factory()


@pytest.fixture
def other(driver_factory: DriverFactory) -> Driver:
    """Another process's driver on the same store."""
    return driver_factory()
