"""What all jobs of a process share, and what one of them may change for the others.

================================================ =======================================================================
a job                                            the worker
================================================ =======================================================================
stops the loop, sets a task factory, cancels     ignores it: see `event_loop`, `protected_task`
tasks of others, shuts the default executor down
takes over TERM, INT, QUIT, HUP, USR2, CONT      takes them back, within a quarter of a second
gives ALRM, PIPE, USR1, … their default          takes them back as quickly: the next one would end the process
disables or resets logging                       enables it again; its own log is written all the same
changes the working directory, the umask, the    restores it when the next job ends, whichever that is
standard streams, the locale, limits, defaults
of `socket`, `gc`, threads, recursion, switching
forks, and lets the child come back              ends the child: see `middleware.forked_handler`
changes the environment or the user              reports it: others may rely on it by now
================================================ =======================================================================
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import locale
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from outbox import clock
from outbox.events import Events, ProcessAltered
from outbox.runtime.execution.attempt import Attempt
from outbox.runtime.execution.protected_task import current_job
from outbox.runtime.process.event_loop import WorkerLoop
from outbox.runtime.process.signals import GUARDED, Signals
from outbox.runtime.reporting.logs import EventLog

_SELDOM = 1.0
"""Seconds between two looks at what costs more to look at."""

_SUSPECTS, _NAMES = 50, 10

_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_NPROC")
    if hasattr(resource, name)
)

Change = tuple[str, str]
"""What was changed, and what was done about it."""

_RESTORED = "it was restored"


class _Setting:
    """A value of the process that can be read and set."""

    def __init__(self, what: str, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self._what = what
        self._read = read
        self._write = write
        self._value = read()

    def restore(self) -> Change | None:
        if self._read() == self._value:
            return None
        try:
            self._write(self._value)
        except (OSError, ValueError, locale.Error) as error:
            self._value = self._read()
            return f"changed {self._what}", f"it could not be restored: {error}"
        return f"changed {self._what}", _RESTORED


class ProcessState:
    """Remembers the state of the process as the application's modules left it, and restores what jobs change.

    Everything runs on the event loop of the worker, in the main thread.
    """

    def __init__(self, signals: Signals, log: EventLog, events: Events) -> None:
        self._signals = signals
        self._log = log
        self._events = events
        self._suspects: list[Attempt] = []
        self._reported: dict[str, float] = {}
        self._looking = False
        self._looked = 0.0
        self._unseen = False
        """Whether a job has ended since."""
        self._directory = _working_directory()
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        self._encodings = {name: _encoding(stream) for name, stream in self._streams.items()}
        self._descriptors = dict(_copies_of_standard_descriptors())
        self._environment: dict[str, str] = {}
        self._user = (os.geteuid(), os.getegid())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settings = [
            _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
            _Setting("the switch interval of threads", sys.getswitchinterval, sys.setswitchinterval),
            _Setting("the stack size of threads", threading.stack_size, threading.stack_size),
            _Setting("the default timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
            _Setting("threading.excepthook", lambda: threading.excepthook, partial(setattr, threading, "excepthook")),
            _Setting("garbage collection", gc.isenabled, _switch_collector),
        ]
        self._costly = [
            _Setting("the locale", _get_locale, lambda value: locale.setlocale(locale.LC_ALL, value)),
            *(_Setting("a resource limit", partial(resource.getrlimit, of), _limit_setter(of)) for of in _LIMITS),
        ]

    def guard(self, loop: WorkerLoop, main: asyncio.Task[Any]) -> None:
        """From now until ``main`` is done, jobs run on ``loop``."""
        self._loop = loop
        # Not before: what a supervisor has told the process is taken from the environment until here.
        self._environment = dict(os.environ)
        loop.guard(main, self.report, GUARDED)

    def report(self, what: str, action: str) -> None:
        """Say what a job did, once a second at most for the same. May be called from any thread."""
        now = clock.now()
        if now - self._reported.get(what, float("-inf")) < _SELDOM:
            return
        self._reported[what] = now
        culprit = current_job()
        self._events.emit(ProcessAltered(what, action, (culprit,) if culprit else self._suspect_names()))

    def _suspect_names(self) -> tuple[str, ...]:
        return tuple(f"{attempt.claim.name} {attempt.fence.job_id}" for attempt in tuple(self._suspects))

    def job_ended(self, attempt: Attempt) -> None:
        """Look at everything, once for all jobs that end in this turn of the loop."""
        if len(self._suspects) < _SUSPECTS:
            self._suspects.append(attempt)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look_at_all)

    def look(self) -> None:
        """Look at what must not wait until a job ends, and now and then at what costs more to look at."""
        changes = self._urgent()
        if self._unseen and clock.now() - self._looked >= _SELDOM:
            self._looked, self._unseen = clock.now(), False
            found = [self._check_environment(), self._check_user(), *(each.restore() for each in self._costly)]
            changes += [change for change in found if change is not None]
        self._report_all(changes)

    def _look_at_all(self) -> None:
        self._looking, self._unseen = False, True
        self._report_all([*self._urgent(), *self._shared()])
        self._suspects.clear()

    def _report_all(self, changes: list[Change]) -> None:
        for what, action in changes:
            self.report(what, action)

    def _urgent(self) -> list[Change]:
        changes = []
        if names := self._signals.reinstall():
            changes.append((f"changed the handling of {', '.join(names)}", _RESTORED))
        if what := self._log.restore():
            changes.append((what, "it is enabled again"))
        if self._loop is not None and self._loop.get_debug() and not sys.flags.dev_mode and not self._debug:
            self._loop.set_debug(False)
            changes.append(("set the debug mode of the event loop", _RESTORED))
        return changes

    _debug = bool(os.environ.get("PYTHONASYNCIODEBUG"))

    def _shared(self) -> list[Change]:
        found = [self._check_directory(), self._check_umask(), *(each.restore() for each in self._settings)]
        found += [self._check_stream(name) for name in self._streams]
        found += [self._check_descriptor(number) for number in self._descriptors]
        return [change for change in found if change is not None]

    def _check_directory(self) -> Change | None:
        here = _working_directory()
        if here == self._directory:
            return None
        try:
            if self._directory is None:
                raise FileNotFoundError
            os.chdir(self._directory)
        except OSError:
            self._directory = here
            return "changed or removed the working directory", "it could not be restored"
        return "changed the working directory", _RESTORED

    def _check_umask(self) -> Change | None:
        return ("changed the umask", _RESTORED) if os.umask(self._umask) != self._umask else None

    def _check_stream(self, name: str) -> Change | None:
        now, before = getattr(sys, name), self._streams[name]
        if now is before and not _is_closed(before):
            return self._check_encoding(name)
        if _is_closed(before):
            number = ("stdin", "stdout", "stderr").index(name)
            mode = "r" if number == 0 else "w"
            with suppress(OSError):
                self._restore_descriptor(number)
            before = self._streams[name] = open(number, mode, buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
            self._encodings[name] = _encoding(before)
        setattr(sys, name, before)
        return f"closed or replaced sys.{name}", _RESTORED

    def _check_encoding(self, name: str) -> Change | None:
        stream, before = self._streams[name], self._encodings[name]
        if _encoding(stream) == before:
            return None
        try:
            stream.reconfigure(encoding=before[0], errors=before[1])
        except ValueError as error:  # some of it was read
            self._encodings[name] = _encoding(stream)
            return f"changed the encoding of sys.{name}", f"it could not be restored: {error}"
        return f"changed the encoding of sys.{name}", _RESTORED

    def _check_descriptor(self, number: int) -> Change | None:
        copy, identity = self._descriptors[number]
        found = _identity(number)
        if found == identity:
            return None
        if found is not None:
            # Redirected; or closed, and taken by what was opened next, which may be a connection of the store.
            self._descriptors[number] = copy, found
            return f"redirected file descriptor {number}", "it was left so"
        try:
            self._restore_descriptor(number)
        except OSError as error:
            del self._descriptors[number]
            return f"closed file descriptor {number}", f"it could not be restored: {error}"
        return f"closed file descriptor {number}", _RESTORED

    def _restore_descriptor(self, number: int) -> None:
        if number in self._descriptors and _identity(number) is None:
            os.dup2(self._descriptors[number][0], number)

    def _check_environment(self) -> Change | None:
        now = dict(os.environ)
        if now == self._environment:
            return None
        both = now.keys() | self._environment.keys()
        names = sorted(name for name in both if now.get(name) != self._environment.get(name))
        self._environment = now
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        return f"changed the environment ({', '.join(names[:_NAMES])}{more})", "it was left so"

    def _check_user(self) -> Change | None:
        user, self._user = self._user, (os.geteuid(), os.getegid())
        return None if user == self._user else ("changed the user of the process", "it was left so")


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - for every job that ends
    except OSError:
        return None


def _is_closed(stream: Any) -> bool:
    """A stream whose buffer was detached (``TextIOWrapper(sys.stdout.detach(), …)``) answers with an error."""
    try:
        return bool(getattr(stream, "closed", False))
    except ValueError:
        return True


def _encoding(stream: Any) -> tuple[str | None, str | None]:
    """Its encoding, and what it does about characters that this lacks."""
    return (None, None) if _is_closed(stream) else (getattr(stream, "encoding", None), getattr(stream, "errors", None))


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copies_of_standard_descriptors() -> Iterator[tuple[int, tuple[int, tuple[int, int]]]]:
    for number in range(3):
        if identity := _identity(number):
            yield number, (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10), identity)


def _switch_collector(on: bool) -> None:
    (gc.enable if on else gc.disable)()


def _get_locale() -> str:
    return locale.setlocale(locale.LC_ALL)


def _limit_setter(limit: int) -> Callable[[tuple[int, int]], object]:
    def restore(value: tuple[int, int]) -> None:
        """The hard limit cannot be raised again."""
        hard = resource.getrlimit(limit)[1]
        soft = value[0] if hard == resource.RLIM_INFINITY else hard if value[0] < 0 else min(value[0], hard)
        resource.setrlimit(limit, (soft, hard))

    return restore
