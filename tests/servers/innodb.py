"""What MySQL and MariaDB have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import ClassVar

from tests.servers import process
from tests.servers.local import LocalServer

# Durable, as in production: a test that kills the server then finds every commit that was acknowledged.
SETTINGS = (
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--max-connections=300",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=1",
    "--log-bin=binlog",
    "--sync-binlog=1",
)

# Both servers create root for the socket only. Neither takes 127.0.0.1 for localhost once names are not resolved.
ROOT_OVER_TCP = """\
SET SESSION sql_log_bin = 0;
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
"""


class InnoDBServer(LocalServer):
    settings: ClassVar[tuple[str, ...]] = SETTINGS

    @property
    def url(self) -> str:
        return f"mysql+asyncmy://root@127.0.0.1:{self.port}"

    @abstractmethod
    def initialise(self) -> list[str]:
        """The command that makes the system tables, without its data directory and user."""

    def prepare(self) -> None:
        (self.directory / "root.sql").write_text(ROOT_OVER_TCP)
        process.run([*self.initialise(), *self.place()], self.log)

    def command(self) -> list[str]:
        return [
            self.program,
            "--no-defaults",
            *self.place(),
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            # Relative to the data directory: the path of a socket may have 107 bytes, and a test's can be longer.
            "--socket=server.sock",
            "--pid-file=server.pid",
            f"--init-file={self.directory / 'root.sql'}",
            *self.settings,
            *self.options,
        ]

    def place(self) -> list[str]:
        """The options that say where its files are, and as whom it runs.

        A MariaDB that starts removes every temporary table from the directory where it will make its own. Two servers
        with one directory would take each other's: the one that misses its table crashes.
        """
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        user = ["--user=root"] if os.geteuid() == 0 else []  # else both refuse to run as root
        return [f"--datadir={self.data}", f"--tmpdir={temporary}", *user]
