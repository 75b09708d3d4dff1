"""MariaDB 10.6 or later."""

from __future__ import annotations

from typing import ClassVar

from tests.servers.innodb import SETTINGS, InnoDBServer
from tests.servers.programs import which

MARIADB_SETTINGS = (*SETTINGS, "--binlog-format=ROW")  # what MySQL has by default


class MariaDB(InnoDBServer):
    kind = "mariadb"
    remedy = (
        "install MariaDB 10.6 or later (mariadbd and mariadb-install-db), "
        "start a container engine, or set OUTBOX_TEST_MARIADB_URL"
    )

    settings: ClassVar[tuple[str, ...]] = MARIADB_SETTINGS

    @classmethod
    def program_on_this_machine(cls) -> str | None:
        return which("mariadbd") if which("mariadb-install-db") else None

    def initialise(self) -> list[str]:
        return [
            which("mariadb-install-db") or "mariadb-install-db",
            "--no-defaults",
            "--auth-root-authentication-method=normal",  # the other one lets nobody in over TCP
            "--skip-test-db",
        ]
