"""A process that has imported outbox and what it needs, and forks a Python process for each request.

    python -P fork_server.py CONTROL ROOT

Most of the start of a Python process is spent on imports, which a fork inherits. What Python reads when it starts is
read here, before the environment of the fork is known: `python_process.py` says which processes cannot come from here.

CONTROL is the descriptor of a socket that keeps messages apart, ROOT the repository. Each message is a request in JSON
with four descriptors: a socket for the answers, stdin, stdout and stderr. The answers are lines: the pid, then the exit
code as `subprocess` has it. The server ends when the other end of CONTROL is closed.

A fork ends as Python does, except that the kernel frees what it has inherited: Python would take 0.2 s for it, as each
page is copied first. Threads are joined, `atexit` is served and garbage is collected before.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

LONGEST_REQUEST = 1 << 17
ENTRY_POINTS = ("outbox.__main__", "outbox.work")
PRELOADED = (
    *ENTRY_POINTS,
    "aiosqlite",
    "alembic.command",
    "alembic.config",
    "inotify_simple",
    "multiprocessing.reduction",
    "outbox.drivers.database.connection.lazy_asyncmy",
    "outbox.drivers.database.connection.sqlite_engine",
    "outbox.wakeups.sqlite_data_version",
    "outbox.wakeups.sqlite_file_changes",
    "redis.asyncio",
    "sqlalchemy.dialects.mysql.asyncmy",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvloop",
)


def preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules["outbox.drivers.database.connection.lazy_asyncmy"].load_asyncmy()
    importlib.import_module("outbox.wakeups.binlog.stream")  # after what it needs of asyncmy
    for name in ENTRY_POINTS:  # a fork runs them as `__main__`
        del sys.modules[name]
        package, _, module = name.rpartition(".")
        delattr(sys.modules[package], module)


class ForkServer:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, socket.socket] = {}
        self._ended, self._end = os.pipe()
        os.set_blocking(self._end, False)
        signal.set_wakeup_fd(self._end)
        self._selector = selectors.DefaultSelector()
        for file in (self._control, self._ended):
            self._selector.register(file, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> dict[str, Any]:
        """Return in each fork, with its request."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._ended:
                    os.read(self._ended, 1024)
                    self._reap()
                elif request := self._fork():
                    return request

    def _fork(self) -> dict[str, Any] | None:
        message, received, _, _ = socket.recv_fds(self._control, LONGEST_REQUEST, 4)
        if not message:
            sys.exit()
        answers, *descriptors = received
        client, request = socket.socket(fileno=answers), json.loads(message)
        pid = os.fork()
        if pid == 0:
            client.close()
            self._become(request, descriptors)
            return dict(request)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[pid] = client
        client.sendall(f"{pid}\n".encode())
        return None

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._children.pop(pid) as client:
                try:
                    client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                except OSError:  # the tests do not ask any more
                    continue

    def _become(self, request: dict[str, Any], descriptors: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        for each in (self._selector, self._control, *self._children.values()):
            each.close()
        for descriptor in (self._ended, self._end):
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in request["ignored_signals"]:
            signal.signal(number, signal.SIG_IGN)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        for descriptor in descriptors:
            os.close(descriptor)
        if request["terminal"]:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])


class QuickEnd:
    """What `atexit` calls last, because it is registered before anything else is imported."""

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._leave)

    def watch(self, function: Callable[[], None]) -> None:
        """Call it and note the exit code. An error that Python has to report ends the process in Python's way."""
        try:
            function()
            self._code = 0
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                self._code = (ended.code or 0) & 0xFF
            raise

    def _leave(self) -> None:
        if self._code is not None:
            gc.collect()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code)


def run(request: dict[str, Any], path: list[str]) -> None:
    """Be ``python command…``: with ``-m module``, ``-c code`` or the name of a script, and arguments."""
    first, *rest = request["command"]
    directory = {"-m": Path.cwd(), "-c": ""}.get(first, Path(first).resolve().parent)
    sys.path[:] = [str(directory), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        errors = getattr(sys, name).errors
        stream = os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
        if mode == "w":
            stream.reconfigure(line_buffering=name == "stderr" or stream.isatty(), write_through=unbuffered)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if first == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        run_code(compile(rest[0], "<string>", "exec"))
    else:
        sys.argv[:] = [first, *rest]
        run_code(compile(Path(first).read_bytes(), first, "exec"), __file__=first)


def run_code(code: CodeType, **names: str) -> None:
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__.update(names)
    exec(code, main.__dict__)


if __name__ == "__main__":
    end = QuickEnd()
    inherited = list(sys.path)
    sys.path.insert(0, sys.argv[2])
    preload()
    gc.freeze()
    server = ForkServer(socket.socket(fileno=int(sys.argv[1])))
    end.watch(lambda: run(server.serve(), inherited))
