"""The SQL that differs between databases: one file each, and nowhere else."""

from __future__ import annotations

from sqlalchemy.engine import Dialect as EngineDialect

from outbox.drivers.database.dialects.base import Dialect, Statement
from outbox.drivers.database.dialects.mysql import MySQL
from outbox.drivers.database.dialects.sqlite import SQLite
from outbox.errors import ConfigurationError

__all__ = ["Dialect", "MySQL", "SQLite", "Statement", "dialect_for"]


def dialect_for(engine_dialect: EngineDialect) -> Dialect:
    """The SQL for an engine or a session's bind.

    Raises:
        ConfigurationError: it is neither MySQL, MariaDB nor SQLite.
    """
    if engine_dialect.name in {"mysql", "mariadb"}:
        return MYSQL
    if engine_dialect.name == "sqlite":
        return SQLITE
    raise ConfigurationError(f"outbox keeps jobs in MySQL, MariaDB or SQLite, not in {engine_dialect.name}")


MYSQL = MySQL()
SQLITE = SQLite()
