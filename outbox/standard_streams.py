"""The standard streams of a command: closed ones, as by ``>&-``, and those whose encoding lacks characters."""

from __future__ import annotations

import io
import os
import sys

_NAMES = ("stdin", "stdout", "stderr")


def prepare_streams(*, line_buffering: bool | None = None) -> None:
    """Have the standard streams take any character: payloads hold any, and cron's idea of an encoding may be ASCII."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=line_buffering)


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
