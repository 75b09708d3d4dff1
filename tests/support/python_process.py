"""Python processes under test: ``python command…``, where the command is ``-m module``, ``-c code`` or a script.

Where that makes no difference they are forks of one process that has imported outbox (`fork_server.py`), which takes a
tenth of the time. It makes one for what Python itself reads when it starts: such processes are started from nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORK_SERVER = Path(__file__).with_name("fork_server.py")
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC", "TZ")
LEFT_TO_A_FORK = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


class ForkedProcess:
    """As much of `asyncio.subprocess.Process` as the tests use."""

    def __init__(self, connection: socket.socket) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._connection = connection
        self._ended: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        answers, to_server = await asyncio.open_unix_connection(sock=self._connection)
        self.pid = int(await answers.readline())

        async def end() -> None:
            self.returncode = int(await answers.readline())
            to_server.close()

        self._ended = asyncio.create_task(end())

    async def wait(self) -> int:
        assert self._ended is not None
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        assert self.stdout is not None
        assert self.stderr is not None
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """:raises ProcessLookupError: it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start_python(
    *command: str,
    cwd: Path,
    env: Mapping[str, str],
    stderr: int = asyncio.subprocess.PIPE,
    limit: int = 2**16,
    ignored_signals: Sequence[int] = (),
) -> asyncio.subprocess.Process | ForkedProcess:
    """A process with nothing to read, whose output comes through pipes. ``stderr`` may be ``STDOUT``."""
    if not forks(env):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=limit,
            preexec_fn=partial(_hear_signals, ignored_signals),
        )
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.pipe()
    err = os.pipe() if stderr == asyncio.subprocess.PIPE else None
    streams = (nothing, out[1], err[1] if err else out[1])
    process = ForkedProcess(_request(command, cwd, env, streams, ignored_signals))
    for descriptor in {*streams}:
        os.close(descriptor)
    process.stdout = await _reader(out[0], limit)
    process.stderr = await _reader(err[0], limit) if err else None
    await process.begin()
    return process


async def start_on_terminal(*command: str, cwd: Path, env: Mapping[str, str], terminal: int) -> ForkedProcess:
    """A process whose standard streams and controlling terminal are ``terminal``, in a session of its own."""
    process = ForkedProcess(_request(command, cwd, env, (terminal,) * 3, (), terminal=True))
    await process.begin()
    return process


def run_python(
    *command: str, cwd: Path, env: Mapping[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end.

    :raises subprocess.CalledProcessError: with ``check``, its exit code is not 0.
    """
    whole = [sys.executable, *command]
    if not forks(env):
        return subprocess.run(whole, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=check)
    with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = (nothing.fileno(), out.fileno(), err.fileno())
        with _request(command, cwd, env, streams, ()) as connection, connection.makefile() as answers:
            _, code = answers.read().split()
        for file in (out, err):
            file.seek(0)
        ran = subprocess.CompletedProcess(whole, int(code), out.read().decode(), err.read().decode())
    if check:
        ran.check_returncode()
    return ran


def forks(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment may be a fork: nothing in it is for Python's own start, and it imports
    this tree's outbox."""
    names = {name for name in {*env, *os.environ} - LEFT_TO_A_FORK if name.startswith(READ_AT_START)}
    path = env.get("PYTHONPATH", "").split(os.pathsep)
    this_tree = all(folder == str(ROOT) or not Path(folder, "outbox").exists() for folder in filter(None, path))
    return sys.platform == "linux" and this_tree and all(env.get(name) == os.environ.get(name) for name in names)


def _request(
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    streams: Sequence[int],
    ignored_signals: Sequence[int],
    *,
    terminal: bool = False,
) -> socket.socket:
    request = {
        "command": list(command),
        "cwd": str(cwd),
        "env": dict(env),
        "ignored_signals": [int(number) for number in ignored_signals],
        "terminal": terminal,
    }
    body = json.dumps(request).encode()
    answers, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_fork_server()[0], [body], (theirs.fileno(), *streams))
    return answers


@cache
def _fork_server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start it. It ends when its socket is closed, with this process, however that ends."""
    control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        return control, subprocess.Popen(
            [sys.executable, "-P", str(FORK_SERVER), str(theirs.fileno()), str(ROOT)],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            preexec_fn=_hear_signals,
        )


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb", buffering=0))
    return reader


def _hear_signals(ignored: Sequence[int] = ()) -> None:
    """A run of the tests in the background, or under ``nohup``, ignores these, and its children would as well."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
