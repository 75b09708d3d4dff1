"""Plain synchronous connections for the tests' own housekeeping, through none of the code under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url

SYNC_DRIVERS = {"mysql": "mysql+pymysql", "sqlite": "sqlite"}
LOCK_SECONDS = 60.0
"""For which a connection to an SQLite file waits until others have written. By default five: on a busy machine, another
process can stop for as long in the middle of a transaction."""


def engine(url: str, *, timeout: float = 30.0) -> Engine:
    """An engine without a pool and with autocommit. `timeout` (seconds) is for connecting.

    PyMySQL would read the system's certificates for every connection, which takes 35 ms. A test's server needs none.
    """
    address = make_url(url)
    arguments: dict[str, object] = {"timeout": LOCK_SECONDS}
    if address.get_backend_name() == "mysql":
        arguments = {"connect_timeout": max(1, round(timeout)), "ssl_disabled": True}
    address = address.set(drivername=SYNC_DRIVERS[address.get_backend_name()])
    return create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)


@contextmanager
def connection(url: str, *, timeout: float = 30.0) -> Iterator[Connection]:
    database = engine(url, timeout=timeout)
    try:
        with database.connect() as opened:
            yield opened
    finally:
        database.dispose()
