"""Why a worker stops, and the exit codes that say so to what started it.

==== =====================================================================================================
code meaning
==== =====================================================================================================
0    asked to stop, or done: ``--once``, ``--stop-when-empty``, ``--max-jobs``, ``--max-time``
1    an unexpected error
2    settings, flags, the database's version or its tables are wrong: starting again will not help
12   ``--memory`` was reached (Laravel's code)
13   to the supervisor of ``--processes`` only, which replaces this process at once; it never leaves the command
14   every slot is taken by a handler that does not end
15   a handler blocks the event loop, long after its timeout or after the time to stop; nothing else could end it
130  a second INT, TERM, QUIT, HUP or XCPU: stopped hard
==== =====================================================================================================
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    OK = 0
    ERROR = 1
    CONFIGURATION = 2
    MEMORY = 12
    RECYCLE = 13
    STUCK = 14
    BLOCKED = 15
    HARD_STOP = 130


class Reason(Enum):
    """Why a worker stops: what it says, its exit code, and whether running jobs get only ``--grace`` to finish."""

    SIGNAL = ("asked to stop", ExitCode.OK, True)
    ORPHANED = ("its supervisor is gone", ExitCode.OK, True)
    ONCE = ("--once", ExitCode.OK, False)
    EMPTY = ("nothing left to do", ExitCode.OK, False)
    MAX_JOBS = ("--max-jobs reached", ExitCode.OK, False)
    MAX_TIME = ("--max-time reached", ExitCode.OK, False)
    MEMORY = ("--memory reached", ExitCode.MEMORY, False)
    STUCK = ("every slot is taken by a handler that does not end", ExitCode.STUCK, True)
    CONFIGURATION = ("the configuration is wrong", ExitCode.CONFIGURATION, True)
    CRASHED = ("an unexpected error", ExitCode.ERROR, True)

    def __init__(self, text: str, code: ExitCode, urgent: bool) -> None:
        self.text = text
        self.code = code
        self.urgent = urgent

    def exit_code(self, *, supervised: bool) -> ExitCode:
        """A supervisor must tell a process that is done from one that wants to be replaced."""
        if supervised and self.code is ExitCode.OK and self not in (Reason.ONCE, Reason.EMPTY):
            return ExitCode.RECYCLE
        return self.code


_FLUSH_WITHIN = 1.0

_before_end: list[Callable[[], object]] = []


def before_end(flush: Callable[[], object]) -> None:
    """Call ``flush`` before the process ends, however it does so by itself."""
    _before_end.append(flush)


def flush_streams() -> bool:
    """Write what waits to be written, for a second at most. Returns whether nothing is left.

    In a thread, because the other end of a pipe may have stopped reading.
    """
    flushed = threading.Event()
    try:
        # Not through `threading`, whose locks the code that a signal interrupted may hold.
        _thread.start_new_thread(_flush, (flushed,))
    except RuntimeError:  # no more threads can be started
        return False
    return flushed.wait(_FLUSH_WITHIN)


def _flush(flushed: threading.Event) -> None:
    for flush in _before_end:
        with suppress(BaseException):
            flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    flushed.set()


def end_now(code: int) -> NoReturn:
    """End the process from whatever thread, whatever else it is doing."""
    flush_streams()
    os._exit(code)
