"""A running server, wherever it came from. Many tests use it: none may kill it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    kind: str
    """mysql, mariadb, redis or mosquitto."""

    url: str
    """Where it answers. For the databases an async SQLAlchemy URL that names no database."""
