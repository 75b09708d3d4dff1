"""Starts programs that never outlive the tests."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.errors import ServerFailedError

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")

# Linux kills such a process when the thread that started it ends, not when the whole process does. A test may
# restart a server from a thread that is soon gone (`asyncio.to_thread`), so one thread that stays starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-starter")


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `log`. It dies with this process, however this process dies."""
    return _starter.submit(_start, command, log).result()


def run(command: Sequence[str], log: Path) -> None:
    """Run `command` to its end.

    :raises ServerFailedError: it exited with an error.
    """
    if code := start(command, log).wait():
        raise ServerFailedError(f"{command[0]} exited with {code}:\n{tail(log)}")


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


_given = deque[int](maxlen=100)
"""The ports that this process was given last. Their servers may not have started yet."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 where nobody listens, and none of the last hundred that were asked for.

    It lies below the ports that the kernel gives to clients. From that range a client which keeps trying to reach a
    killed server can be given the server's own port, connect to itself, and keep the server from ever coming back.
    """
    for port in random.sample(_ports(), k=200):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise ServerFailedError("no free TCP port on 127.0.0.1")


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    wrapped = [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()), *command]
    with log.open("ab") as output:
        # A session of its own keeps Ctrl-C from the servers: the tests are to stop them, after their own clean-up.
        return subprocess.Popen(wrapped, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _ports() -> range:
    """Those of this process. Two that look at the same time must not find the same one."""
    ports = range(10_000, _first_client_port())
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker:
        return ports[: len(ports) // 2]  # the controller's, or those of the only process
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first, share = len(ports) // 2, len(ports) // 2 // count
    return ports[first + int(worker) * share :][:share]


def _first_client_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768
