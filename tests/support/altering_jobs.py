"""Jobs that change what all jobs of their process share, for worker processes under test."""

from __future__ import annotations

import asyncio
import gc
import io
import locale
import logging
import logging.config
import os
import random
import resource
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from outbox import Job
from tests.support.recorded_jobs import note


def cancel_all_tasks() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def shut_executor_down() -> None:
    executor = ThreadPoolExecutor()
    loop().set_default_executor(executor)
    executor.shutdown()


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def disable_loggers() -> None:
    logging.config.dictConfig({"version": 1})


def detach_stdout() -> None:
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")  # type: ignore[attr-defined]


def write_ascii_only() -> None:
    sys.stdout.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]


def write_to_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError):
        os.write(writing, b"lost")
    os.close(writing)


def lower_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    assert soft > 64


def redirect_descriptor() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def clear_environment() -> None:
    for name in os.environ.keys() - {"RUN_LOG"}:
        del os.environ[name]


def leave_thread_behind() -> None:
    threading.Thread(target=threading.Event().wait).start()


def break_factory() -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no more tasks")

    loop().set_task_factory(refuse)


def exit_later() -> None:
    loop().call_soon(sys.exit, 3)


REPORTED: dict[str, tuple[Callable[[], object], str]] = {
    "stop the loop": (lambda: loop().stop(), "stopped the event loop"),
    "cancel all tasks": (cancel_all_tasks, "cancelled tasks that are not its own"),
    "task factory": (break_factory, "set a task factory"),
    "executor": (shut_executor_down, "shut down the default executor"),
    "debug": (lambda: loop().set_debug(True), "set the debug mode"),
    "TERM handler": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "handling of SIGTERM"),
    "HUP default": (lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL), "handling of SIGHUP"),
    "ALRM default": (lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL), "handling of SIGALRM"),
    "PIPE default": (lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL), "handling of SIGPIPE"),
    "loop's INT handler": (lambda: loop().add_signal_handler(signal.SIGINT, print), "handler for signal 2"),
    "signals blocked": (block_signals, "handling of"),
    "chdir": (lambda: os.chdir("/"), "changed the working directory"),
    "umask": (lambda: os.umask(0o777), "changed the umask"),
    "environment": (lambda: os.environ.update(SECRET="hunter2"), "changed the environment (SECRET)"),
    "stdout None": (lambda: setattr(sys, "stdout", None), "replaced sys.stdout"),
    "stdout closed": (lambda: sys.stdout.close(), "sys.stdout"),
    "stdout detached": (detach_stdout, "sys.stdout"),
    "stdout in ASCII": (write_ascii_only, "changed the encoding of sys.stdout"),
    "stderr closed": (lambda: os.close(2), "closed file descriptor 2"),
    "stdout redirected": (redirect_descriptor, "redirected file descriptor 1"),
    "recursion limit": (lambda: sys.setrecursionlimit(300), "changed the recursion limit"),
    "stack size": (lambda: threading.stack_size(2**20), "changed the stack size of threads"),
    "socket timeout": (lambda: socket.setdefaulttimeout(0.001), "default timeout of sockets"),
    "excepthook": (lambda: setattr(threading, "excepthook", None), "changed threading.excepthook"),
    "gc": (gc.disable, "changed garbage collection"),
    "switch interval": (lambda: sys.setswitchinterval(5), "switch interval"),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C"), "changed the locale"),
    "limit": (lower_limit, "changed a resource limit"),
    "loggers disabled": (disable_loggers, "logging"),
    "logging disabled": (lambda: logging.disable(logging.CRITICAL), "logging"),
    "environment cleared": (clear_environment, "changed the environment"),
}

HARMLESS: dict[str, Callable[[], object]] = {
    "set_event_loop": lambda: asyncio.set_event_loop(None),
    "exception handler": lambda: loop().set_exception_handler(lambda *_: os.abort()),
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01),
    "virtual alarm": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.01),
    "USR1": lambda: os.kill(os.getpid(), signal.SIGUSR1),
    "broken pipe": write_to_broken_pipe,
    "real-time signal": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3),
    "wakeup descriptor": lambda: signal.set_wakeup_fd(-1),
    "exit in a callback": exit_later,
    "logging.shutdown": logging.shutdown,
    "basicConfig": lambda: logging.basicConfig(force=True, level=logging.CRITICAL),
    "freeze": gc.freeze,
    "warnings": lambda: warnings.simplefilter("ignore"),
    "thread": leave_thread_behind,
    "random": lambda: random.seed(1),
    "path": lambda: sys.path.insert(0, "/nowhere"),
}


class Alters(Job):
    """Does one of these things to its process."""

    max_tries = 1
    how: str

    async def handle(self) -> None:
        note("begin", self)
        (REPORTED[self.how][0] if self.how in REPORTED else HARMLESS[self.how])()
        await asyncio.sleep(0)


def come_back_from_a_fork(how: str) -> None:
    """The child leaves ``handle`` in this way. The worker waits for its end, and keeps its exit code."""
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise ValueError("in the child")
        return
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == {"return": 0, "exit": 3, "raise": 1}[how]


class Forks(Job):
    max_tries = 1
    how: str

    async def handle(self) -> None:
        come_back_from_a_fork(self.how)


class ForksInThread(Job):
    max_tries = 1
    how: str

    def handle(self) -> None:
        come_back_from_a_fork(self.how)


class Innocent(Job):
    """Runs beside and after them, and needs what they change: tasks, threads, files, and a lease."""

    max_tries = 1
    number: int = 0
    directory: str = ""

    async def handle(self) -> None:
        note("begin", self)
        await asyncio.gather(
            asyncio.create_task(asyncio.sleep(0.01)), asyncio.to_thread(sys.stdout.write, "printed \N{HOT BEVERAGE}\n")
        )
        if self.directory:
            until = asyncio.get_running_loop().time() + 30
            opened = Path(self.directory, "open")
            while not await asyncio.to_thread(opened.exists) and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.05)
        note("end", self)
