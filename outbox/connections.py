"""Connections by name: which driver the settings mean, and the open ones of each event loop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from outbox.drivers.base import Driver, RelayTarget
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.errors import ConfigurationError
from outbox.loop_cleanup import before_loop_ends
from outbox.settings import DATABASE, REDIS, ConnectionSettings, Settings
from outbox.url_secrets import without_secrets

if TYPE_CHECKING:
    from outbox.drivers.redis import RedisDriver

_NOT_SET = "DATABASE_URL is not set"

_log = logging.getLogger("outbox")

# What a dispatch depends on. Read again when one of these changes, not at every dispatch: that takes a millisecond.
_FOLLOWED = ("DATABASE_URL", "QUEUE_CONNECTION", "REDIS_URL", "OUTBOX_PAYLOAD_LIMIT")


_FOLLOWED_KEYS = tuple(map(os.environ.encodekey, _FOLLOWED))


def _environment() -> dict[Any, Any]:
    """The environment as it is kept. Asking ``os.environ`` for what is not set takes ten times as long."""
    return os.environ._data  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


class _Current:
    """The settings of this process."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.settings: Settings | None = None
        self.environment: tuple[Any, ...] = ()

    def get(self) -> Settings:
        environment = tuple(map(_environment().get, _FOLLOWED_KEYS))
        if self.settings is None or environment != self.environment:
            self.settings = Settings.load(**self.given)
            self.environment = environment
        return self.settings

    def set(self, given: dict[str, Any]) -> None:
        self.given = given
        self.settings = None


_current = _Current()


def configure(**given: Any) -> Settings:
    """Set settings from code, for this process: ``configure(database_url=…)``. They go before the environment; a later
    call replaces them, and one without arguments returns to the environment.

    Raises:
        ConfigurationError: a value is wrong.
    """
    Settings.load(**given)
    _current.set(given)
    return _current.get()


def current_settings() -> Settings:
    """The settings that ``dispatch`` goes by.

    Raises:
        ConfigurationError: a value is wrong.
    """
    return _current.get()


def connection_settings(settings: Settings, name: str) -> ConnectionSettings:
    """
    Raises:
        ConfigurationError: no connection has this name.
    """
    if name in settings.connections:
        return settings.connections[name]
    if name == DATABASE:
        return _connection(DATABASE, settings.database_url)
    if name == REDIS:
        if settings.redis_url is None:
            raise ConfigurationError("the connection redis needs a server: set REDIS_URL=redis://host:6379/0")
        return _connection(REDIS, settings.redis_url)
    known = ", ".join(sorted({DATABASE, REDIS, *settings.connections}))
    raise ConfigurationError(
        f"there is no connection {name!r} (there are: {known}): see QUEUE_CONNECTION and [tool.outbox.connections]"
    )


@lru_cache(maxsize=32)
def _connection(driver: str, url: str) -> ConnectionSettings:
    """Asked for several times at every dispatch."""
    return ConnectionSettings(driver=driver, url=url)


def open_driver(settings: Settings, name: str, *, pool_size: int = 5, dispatches: bool = False) -> Driver:
    """A driver for the connection ``name``; its pool belongs to the event loop on which it is first used. One that only
    ``dispatches`` does that in the fewest round trips.

    Raises:
        ConfigurationError: there is no such connection, or its URL or driver is wrong.
    """
    connection = connection_settings(settings, name)
    if connection.driver == REDIS:
        return _redis_driver(settings, name, pool_size)
    if connection.driver != DATABASE:
        raise ConfigurationError(
            f"the connection {name!r} names the driver {connection.driver!r}; there are: {DATABASE}, {REDIS}"
        )
    elsewhere = _redis_names(settings) if has_database(settings) and connection.url == settings.database_url else ()
    with _blamed(settings, name):
        return DatabaseDriver(
            connection.url,
            name=name,
            pool_size=pool_size,
            keeps_failed_of=elsewhere,
            note=_NOT_SET if is_default(settings, name) else "",
            inserts_directly=dispatches,
        )


def _redis_driver(settings: Settings, name: str, pool_size: int) -> Driver:
    keeper = None
    if has_database(settings):
        with _blamed(settings, DATABASE):
            keeper = FailedJobArchive(settings.database_url, of=name)
    kind, url = _redis_class(name), connection_settings(settings, name).url
    with _blamed(settings, name):
        return kind(url, name=name, pool_size=pool_size, failed_store=keeper)


@contextmanager
def _blamed(settings: Settings, name: str) -> Iterator[None]:
    """What is wrong with the URL of a connection is said of the place where it is written."""
    variable = "DATABASE_URL" if name == DATABASE else "REDIS_URL"
    try:
        yield
    except ConfigurationError as error:
        place = f"[tool.outbox.connections.{name}]" if name in settings.connections else variable
        raise ConfigurationError(f"{place}: {error}") from error


def _redis_class(name: str) -> type[RedisDriver]:
    try:
        # Only here: its package is an extra, and takes as long to import as all of outbox.
        from outbox.drivers.redis import RedisDriver
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the connection {name!r} needs a package: pip install 'outbox-queue[redis]' ({error})"
        ) from error
    return RedisDriver


def has_database(settings: Settings) -> bool:
    """Whether there is a database beside Redis: where one was configured, not by default."""
    return "database_url" in settings.model_fields_set


def is_default(settings: Settings, name: str) -> bool:
    """Whether the connection ``name`` is the database that is used where none is configured."""
    return name == DATABASE and name not in settings.connections and not has_database(settings)


def is_relayed(settings: Settings, name: str) -> bool:
    """Whether jobs for the connection ``name`` that are dispatched in a session are relayed to it.

    Raises:
        ConfigurationError: there is no such connection, or no database that a relay could find them in.
    """
    if connection_settings(settings, name).driver != REDIS:
        return False
    if not has_database(settings):
        raise ConfigurationError(
            f"a session's jobs for the connection {name!r} are relayed through the session's database: set "
            "DATABASE_URL to it, so that workers find them there"
        )
    return True


def relayed_connections(settings: Settings) -> list[str]:
    """The connections that workers relay jobs to: none without a database beside Redis."""
    if not has_database(settings):
        return []
    names = [REDIS] if settings.redis_url is not None else []
    return [*names, *(name for name in _redis_names(settings) if name in settings.connections)]


def all_connections(settings: Settings) -> list[str]:
    """The connections that the settings know, that of ``QUEUE_CONNECTION`` first. Of several names for one store there
    is one."""
    names = [settings.connection, *settings.connections]
    names += [DATABASE] if has_database(settings) else []
    names += [REDIS] if settings.redis_url is not None else []
    by_store: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(names):
        try:
            known = connection_settings(settings, name)
        except ConfigurationError:
            # The command that asks it says so.
            by_store[name, ""] = name
        else:
            by_store.setdefault((known.driver, known.url), name)
    return list(by_store.values())


def open_relay_source(settings: Settings) -> DatabaseDriver:
    """The database from which relays move jobs.

    Raises:
        ConfigurationError: as `open_driver`.
    """
    with _blamed(settings, DATABASE):
        return DatabaseDriver(connection_settings(settings, DATABASE).url, pool_size=1)


def open_relay_target(settings: Settings, name: str) -> RelayTarget:
    """What a relay moves jobs to.

    Raises:
        ConfigurationError: as `open_driver`.
    """
    kind, url = _redis_class(name), connection_settings(settings, name).url
    with _blamed(settings, name):
        return kind(url, name=name, pool_size=1)


def _redis_names(settings: Settings) -> list[str]:
    return [REDIS, *(name for name, connection in settings.connections.items() if connection.driver == REDIS)]


_said: set[str] = set()


def _say_default(settings: Settings, name: str) -> None:
    """Once in a process: where no variable says so, jobs may go where nothing looks for them."""
    if is_default(settings, name) and settings.database_url not in _said:
        _said.add(settings.database_url)
        _log.warning("%s; using %s", _NOT_SET, without_secrets(settings.database_url))


_RECENT_LOOPS = 16


class _OpenDrivers:
    """The drivers in use on one event loop, because a pooled connection can be used only on the loop that opened it.

    The loop closes them when it ends in order. What a loop that was only closed has left, the next new loop drops.
    """

    def __init__(self) -> None:
        self._drivers: dict[tuple[str, str], Driver] = {}
        self._closes_at_end: AsyncGenerator[None, None] | None = None

    def get(self, settings: Settings, name: str) -> Driver:
        key = (name, connection_settings(settings, name).url)
        driver = self._drivers.get(key)
        if driver is None:
            _say_default(settings, name)
            driver = self._drivers[key] = open_driver(settings, name, dispatches=True)
            if self._closes_at_end is None:
                self._closes_at_end = before_loop_ends(self.close)
        return driver

    async def close(self) -> None:
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            await driver.close()

    def drop(self) -> None:
        """The loop is closed."""
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            driver.drop()


class _Loops:
    """The open drivers of each event loop, kept with the loop, so that they are collected with it."""

    _ATTRIBUTE = "_outbox_drivers"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        # A loop that was only closed must not be collected before what it has left is closed: that would warn. Those
        # that are never closed must be.
        self._recent: deque[asyncio.AbstractEventLoop] = deque(maxlen=_RECENT_LOOPS)

    def find(self) -> _OpenDrivers | None:
        """Those of the running loop."""
        return getattr(asyncio.get_running_loop(), self._ATTRIBUTE, None)

    def add(self) -> _OpenDrivers:
        """None are open on the running loop yet."""
        self.drop_closed()
        loop, opened = asyncio.get_running_loop(), _OpenDrivers()
        setattr(loop, self._ATTRIBUTE, opened)
        with self._lock:
            self._loops.add(loop)
            self._recent.append(loop)
        return opened

    def drop_closed(self) -> None:
        """Close what closed loops have left. Harmless when repeated."""
        with self._lock:
            closed = [loop for loop in self._loops if loop.is_closed()]
            for loop in closed:
                self._loops.discard(loop)
                with suppress(ValueError):
                    self._recent.remove(loop)
        for loop in closed:
            opened: _OpenDrivers = getattr(loop, self._ATTRIBUTE)
            opened.drop()

    def _after_fork(self) -> None:
        """The parent's connections are the parent's to close. Kept, because a loop that is collected tells the kernel
        to forget what the parent still waits for."""
        self._inherited = list(self._loops)
        self._lock, self._loops = threading.Lock(), WeakSet()
        self._recent.clear()


_loops = _Loops()
os.register_at_fork(after_in_child=_loops._after_fork)  # noqa: SLF001 - not for others to call
atexit.register(_loops.drop_closed)


def driver_here(name: str) -> Driver:
    """The driver of the connection ``name`` for the running event loop, opened when first asked for.

    Raises:
        ConfigurationError: as `open_driver`.
    """
    return (_loops.find() or _loops.add()).get(current_settings(), name)


async def disconnect() -> None:
    """Close what dispatches without a session have opened on this event loop. They open it again when needed.

    A loop that ends as ``asyncio.run`` ends it does so by itself.
    """
    opened = _loops.find()
    if opened is not None:
        await opened.close()
