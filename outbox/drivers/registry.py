"""Which drivers there are: those of outbox, and those that other packages add.

A package adds a driver with an entry point in the group ``outbox.drivers`` that names a `DriverSpec`. The name of the
entry point is what ``driver`` of a connection says in the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from outbox.drivers.base import Driver, FailedStore
from outbox.errors import ConfigurationError

GROUP = "outbox.drivers"


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open one connection. A driver takes from it what concerns it."""

    name: str
    """The connection's name."""
    url: str
    pool_size: int = 5
    dispatches: bool = False
    """The driver only inserts jobs, and does so in the fewest round trips."""
    note: str = ""
    """Said after the address in errors and descriptions."""
    keeps_failed_of: Collection[str] = ()
    """Connections whose failed jobs this store keeps beside its own."""
    failed_store: FailedStore | None = None
    """Keeps the failed jobs of this connection in another store, as `DriverSpec.open_failed_store` made it."""
    replica_url: str | None = None
    """A copy of the store, from which operators read: see `Driver.read_only`."""


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """What outbox knows of a driver before it is imported."""

    factory: str
    """``module:function`` of a function of `OpenOptions` that returns a `Driver`. The module is imported when the first
    connection is opened, because its packages may be extras."""
    package: str = ""
    """What to install when the module of the factory lacks a package."""
    url_setting: str = ""
    """The setting with the URL of the connection of the driver's own name."""
    is_sql: bool = False
    """Its URLs are those of SQLAlchemy."""
    is_relayed_to: bool = False
    """Jobs dispatched in a session reach it through a relay, and its failed jobs move to the database."""
    publishes: bool = False
    """It announces stored jobs itself, on the wake-up channel of the Redis at its URL."""
    failed_store: str = ""
    """``module:function`` of a function of a URL and a connection's name. It opens a store for the failed jobs of that
    connection, which is kept elsewhere."""

    def open(self, options: OpenOptions) -> Driver:
        """
        Raises:
            ConfigurationError: the URL is wrong, or a package is missing.
        """
        driver: Driver = self._load(self.factory, options.name)(options)
        return driver

    def open_failed_store(self, url: str, connection: str) -> FailedStore:
        """
        Raises:
            ConfigurationError: the URL is wrong, or a package is missing.
        """
        store: FailedStore = self._load(self.failed_store, connection)(url, connection)
        return store

    def _load(self, place: str, connection: str) -> Callable[..., Any]:
        module, _, function = place.partition(":")
        try:
            found: Callable[..., Any] = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the connection {connection!r} needs a package: pip install '{self.package or module}' ({error})"
            ) from error
        return found


BUILT_IN = {
    "database": DriverSpec(
        "outbox.drivers.database:open_driver",
        url_setting="database_url",
        is_sql=True,
        failed_store="outbox.drivers.database:open_failed_store",
    ),
    # Its package is an extra, and takes as long to import as all of outbox.
    "redis": DriverSpec(
        "outbox.drivers.redis:open_driver",
        package="outbox-queue[redis]",
        url_setting="redis_url",
        is_relayed_to=True,
        publishes=True,
    ),
}


def driver_spec(name: str) -> DriverSpec | None:
    """The driver of this name; None where there is none."""
    return BUILT_IN.get(name) or _added().get(name)


def driver_names() -> list[str]:
    return sorted({*BUILT_IN, *_added()})


@lru_cache(maxsize=1)
def _added() -> dict[str, DriverSpec]:
    """
    Raises:
        ConfigurationError: an entry point names something else.
    """
    found = {}
    for entry in entry_points(group=GROUP):
        spec = entry.load()
        if not isinstance(spec, DriverSpec):
            raise ConfigurationError(f"the entry point {entry.name!r} of {GROUP} is not a DriverSpec: {spec!r}")
        found[entry.name] = spec
    return found
