"""A running server, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass

from tests.servers.local import LocalServer


@dataclass(frozen=True)
class Server:
    kind: str
    """mysql, mariadb, redis or mosquitto."""

    url: str
    """Where it answers. For the databases an async SQLAlchemy URL that names no database."""

    process: LocalServer | None = None
    """The process, where the tests started one. It is shared by the session: a test must not kill it."""
