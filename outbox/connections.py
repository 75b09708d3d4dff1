"""Connections by name: which driver the settings mean, and how to open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

from outbox.drivers.base import Driver
from outbox.drivers.registry import BUILT_IN, DriverSpec, OpenOptions, driver_names, driver_spec
from outbox.errors import ConfigurationError
from outbox.settings import DATABASE, ConnectionSettings, Settings

NOT_SET = "DATABASE_URL is not set"


def connection_settings(settings: Settings, name: str) -> ConnectionSettings:
    """
    Raises:
        ConfigurationError: no connection has this name.
    """
    if name in settings.connections:
        return settings.connections[name]
    spec = BUILT_IN.get(name)
    if spec is None:
        known = ", ".join(sorted({*BUILT_IN, *settings.connections}))
        raise ConfigurationError(
            f"there is no connection {name!r} (there are: {known}): see QUEUE_CONNECTION and [tool.outbox.connections]"
        )
    url = getattr(settings, spec.url_setting)
    if url is None:
        variable = spec.url_setting.upper()
        raise ConfigurationError(f"the connection {name} needs a server: set {variable}={name}://host:6379/0")
    return _connection(name, url, settings.replica_url if spec.is_sql else None)


@lru_cache(maxsize=32)
def _connection(driver: str, url: str, replica_url: str | None) -> ConnectionSettings:
    """Asked for several times at every dispatch."""
    return ConnectionSettings(driver=driver, url=url, replica_url=replica_url)


def spec_of(settings: Settings, name: str) -> DriverSpec:
    """The driver of the connection ``name``.

    Raises:
        ConfigurationError: there is no such connection, or no such driver.
    """
    driver = connection_settings(settings, name).driver
    spec = driver_spec(driver)
    if spec is None:
        known = ", ".join(driver_names())
        raise ConfigurationError(f"the connection {name!r} names the driver {driver!r}; there are: {known}")
    return spec


def open_driver(
    settings: Settings, name: str, *, pool_size: int = 5, dispatches: bool = False, reads_replica: bool = False
) -> Driver:
    """A driver for the connection ``name``; its pool belongs to the event loop on which it is first used. One that only
    ``dispatches`` does that in the fewest round trips. With ``reads_replica`` it is one for an operator who only looks:
    `Driver.read_only` reads from the replica, if the connection has one.

    Raises:
        ConfigurationError: there is no such connection, or its URL or driver is wrong.
    """
    spec, known = spec_of(settings, name), connection_settings(settings, name)
    url, failed_store, elsewhere = known.url, None, []
    if known.replica_url is not None and not spec.is_sql:
        raise ConfigurationError(f"the connection {name} has a replica_url, which only a database can have")
    if spec.is_relayed_to and has_database(settings):
        with _blamed(settings, DATABASE):
            failed_store = BUILT_IN[DATABASE].open_failed_store(settings.database_url, name)
    elif spec.is_sql and has_database(settings) and url == settings.database_url:
        elsewhere = _relayed_names(settings)
    note = NOT_SET if is_default(settings, name) else ""
    with _blamed(settings, name):
        options = OpenOptions(name, url, pool_size, dispatches, note, elsewhere, failed_store)
        return spec.open(replace(options, replica_url=known.replica_url) if reads_replica else options)


@contextmanager
def _blamed(settings: Settings, name: str) -> Iterator[None]:
    """What is wrong with the URL of a connection is said of the place where it is written."""
    try:
        yield
    except ConfigurationError as error:
        own = name in settings.connections
        place = f"[tool.outbox.connections.{name}]" if own else BUILT_IN[name].url_setting.upper()
        raise ConfigurationError(f"{place}: {error}") from error


def has_database(settings: Settings) -> bool:
    """Whether there is a database beside Redis: where one was configured, not by default."""
    return "database_url" in settings.model_fields_set


def is_default(settings: Settings, name: str) -> bool:
    """Whether the connection ``name`` is the database that is used where none is configured."""
    return name == DATABASE and name not in settings.connections and not has_database(settings)


def is_relayed_to(settings: Settings, name: str) -> bool:
    """Whether jobs can be relayed to the connection ``name``: it is Redis.

    Raises:
        ConfigurationError: there is no such connection.
    """
    return spec_of(settings, name).is_relayed_to


def is_relayed(settings: Settings, name: str) -> bool:
    """Whether jobs for the connection ``name`` that are dispatched in a session, or have policies, are relayed to it.

    Raises:
        ConfigurationError: there is no such connection, or no database that a relay could find them in.
    """
    if not spec_of(settings, name).is_relayed_to:
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
    return [name for name in _relayed_names(settings) if name in settings.connections or _is_configured(settings, name)]


def _relayed_names(settings: Settings) -> list[str]:
    """The connections that may have jobs relayed to them, those of a driver's own name first."""
    specs = {name: driver_spec(connection.driver) for name, connection in settings.connections.items()}
    return [name for name, spec in {**BUILT_IN, **specs}.items() if spec is not None and spec.is_relayed_to]


def _is_configured(settings: Settings, name: str) -> bool:
    setting = BUILT_IN[name].url_setting
    return has_database(settings) if name == DATABASE else getattr(settings, setting) is not None


def all_connections(settings: Settings) -> list[str]:
    """The connections that the settings know, that of ``QUEUE_CONNECTION`` first. Of several names for one store there
    is one."""
    names = [settings.connection, *settings.connections]
    names += [name for name in BUILT_IN if _is_configured(settings, name)]
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


def open_for_relay(settings: Settings, name: str) -> Driver:
    """A driver for an end of a relay: the connection ``name`` that it moves jobs to, or the database.

    Raises:
        ConfigurationError: as `open_driver`.
    """
    spec, url = spec_of(settings, name), connection_settings(settings, name).url
    with _blamed(settings, name):
        return spec.open(OpenOptions(name, url, pool_size=1))
