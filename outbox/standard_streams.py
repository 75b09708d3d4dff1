"""Standard streams that were closed before the program started, as ``>&-`` does."""

from __future__ import annotations

import os
import sys

_NAMES = ("stdin", "stdout", "stderr")


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
