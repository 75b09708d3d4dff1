"""What TERM, INT and QUIT do to a process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from outbox.runtime.exits import ExitCode, end_now

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Signals:
    """The first one asks to stop, and a second one ends the process on the spot, with exit code 130.

    Handlers of Python's own, not of the event loop: those would not run while a job blocks the loop.
    """

    def __init__(self, on_first: Callable[[], object], on_second: Callable[[], object] | None = None) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._count = 0

    def install(self) -> None:
        for number in STOPPING:
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._on_first()
            return
        if self._on_second is not None:
            self._on_second()
        end_now(ExitCode.HARD_STOP)
