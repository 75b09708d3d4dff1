"""Redis 7 or later, with an append-only file: an acknowledged write is on the disk, so a kill loses nothing."""

from __future__ import annotations

from tests.servers.local import LocalServer
from tests.servers.programs import which


class Redis(LocalServer):
    kind = "redis"
    remedy = "install Redis 7 or later (redis-server), start a container engine, or set OUTBOX_TEST_REDIS_URL"

    @classmethod
    def program_on_this_machine(cls) -> str | None:
        return which("redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.data.mkdir()

    def command(self) -> list[str]:
        return [
            self.program,
            *("--bind", "127.0.0.1"),
            *("--port", str(self.port)),
            *("--dir", str(self.data)),
            *SETTINGS,
            *self.options,
        ]


SETTINGS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
