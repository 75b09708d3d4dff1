"""The standard streams of a command: closed ones, as by ``>&-``, and those whose encoding lacks characters."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

_NAMES = ("stdin", "stdout", "stderr")
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF, errno.EAGAIN)
"""What a full disk, a lost terminal, a reader that has gone, or a closed stream says."""


def prepare_streams(*, line_buffering: bool | None = None) -> None:
    """Have the standard streams take any character: payloads hold any, and cron's idea of an encoding may be ASCII."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=line_buffering)


def give_up_output(error: OSError, program: str) -> None:
    """Say in one line that the output of ``program`` cannot be written, and have nothing more written.

    Raises:
        OSError: ``error`` itself, if it says something else.
    """
    if error.errno not in _UNWRITABLE:
        raise error
    with suppress(OSError):
        # A reader that has gone, such as `head`, has what it wanted.
        if error.errno != errno.EPIPE:
            print(f"{program}: the output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
    # What is still buffered would be tried again when Python ends.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def open_closed_streams() -> list[str]:
    """Open the null device in place of standard streams that are closed. Returns their names.

    Without it, the next file or connection that is opened would become the standard stream of the process.
    ``sys.stdout`` would be None, which few programs expect.
    """
    closed = []
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            _open_null_device(number)
            closed.append(name)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115
    return closed


def _open_null_device(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number, inheritable=True)
        os.close(opened)
    os.set_inheritable(number, True)
