"""A PostgreSQL of this run, at its defaults: durable, on a free port, its data in a temporary directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import process
from tests.servers.errors import ServerFailedError, ServerMissingError

_START_SECONDS = 60.0
_USER = "postgres"


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """Start it and yield its URL.

    :raises ServerMissingError: it is not installed.
    :raises ServerFailedError: it does not start.
    """
    programs = _programs()
    data, log = directory / "data", directory / "postgres.log"
    directory.mkdir(mode=0o755)
    if os.geteuid() == 0:
        shutil.chown(directory, _USER)
    process.run([*_as_user(), str(programs / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "-N"], log)
    port = process.free_port()
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", f"port={port}"]
    server = process.start([*_as_user(), str(programs / "postgres"), "-D", str(data), *settings], log)
    try:
        _wait(programs, port, log)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # disconnect everybody and stop
        server.wait()


def _programs() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not installed:
        raise ServerMissingError("PostgreSQL", "install the package postgresql, for initdb and postgres")
    return installed[-1]


def _as_user() -> Sequence[str]:
    """PostgreSQL refuses to run as root. The process stays the same one, and still dies with this one."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--pdeathsig", "KILL")


def _wait(programs: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    question = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(question, check=False).returncode:
        if time.monotonic() > deadline:
            raise ServerFailedError(f"PostgreSQL does not answer\n{process.tail(log)}")
        time.sleep(0.1)
