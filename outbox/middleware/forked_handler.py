"""What becomes of a child process that a handler forks, and that comes back from the handler."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

_forks = 0
"""How many forks lie between this process and the one that imported this module."""


def _count_fork() -> None:
    global _forks
    _forks += 1


# To ask the system for the number of the process takes longer, and this is for every job.
os.register_at_fork(after_in_child=_count_fork)


def forks() -> int:
    """Another number in a child than in the process that has forked it."""
    return _forks


def end_if_forked(before: int, error: BaseException | None = None) -> None:
    """End the current process if it is a child of the worker that called the handler, when `forks` was ``before``.

    A child that comes back is a copy of the worker. It would go on as one, over the same connections, and settle jobs
    that the worker runs. It ends as a program of its own does that has returned or raised ``error``.
    """
    if _forks == before:
        return
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        with suppress(BaseException):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code & 0xFF)
