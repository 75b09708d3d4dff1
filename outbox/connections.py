"""Connections by name: which driver the settings mean, and how to open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from outbox.drivers.base import Driver, RelayTarget
from outbox.drivers.database import DatabaseDriver, FailedJobArchive
from outbox.errors import ConfigurationError
from outbox.settings import DATABASE, REDIS, ConnectionSettings, Settings

if TYPE_CHECKING:
    from outbox.drivers.redis import RedisDriver

NOT_SET = "DATABASE_URL is not set"


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
            note=NOT_SET if is_default(settings, name) else "",
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
    """Whether jobs for the connection ``name`` that are dispatched in a session, or have policies, are relayed to it.

    Raises:
        ConfigurationError: there is no such connection, or no database that a relay could find them in.
    """
    if connection_settings(settings, name).driver != REDIS:
        return False
    if not has_database(settings):
        raise ConfigurationError(
            f"a session's jobs for the connection {name!r}, and those with policies such as `unique`, are relayed "
            "through a database: set DATABASE_URL to it, so that workers find them there"
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
