"""MySQL 8.0 or later, from PATH or as `tests/servers/mysql9` unpacks it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import ClassVar

from tests.servers.innodb import SETTINGS, InnoDBServer
from tests.servers.programs import which

OLDEST = 8


class MySQL(InnoDBServer):
    kind = "mysql"
    remedy = (
        "install MySQL 8.0 or later (on Debian, with no need of root: tests/servers/mysql9), "
        "start a container engine, or set OUTBOX_TEST_MYSQL_URL"
    )
    settings: ClassVar[tuple[str, ...]] = (
        *SETTINGS,
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",  # packages name a directory here that exists only where MySQL is installed
    )

    @classmethod
    def program_on_this_machine(cls) -> str | None:
        installed = which("mysqld")
        if installed and is_mysql(installed):
            return installed
        return which(str(unpacked()))

    def initialise(self) -> list[str]:
        return [self.program, "--no-defaults", "--initialize-insecure"]


def is_mysql(program: str) -> bool:
    """Whether `program` is MySQL and recent enough: on many machines mysqld is another name of MariaDB."""
    version = subprocess.run(
        [program, "--no-defaults", "--version"], capture_output=True, text=True, check=False
    ).stdout
    number = re.search(r"Ver (\d+)", version)
    return "MariaDB" not in version and number is not None and int(number[1]) >= OLDEST


def unpacked() -> Path:
    """Where `tests/servers/mysql9` leaves its server."""
    if directory := os.environ.get("OUTBOX_MYSQL9_DIR"):
        return Path(directory) / "mysqld"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "outbox" / "mysql9" / "mysqld"
