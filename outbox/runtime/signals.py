"""What TERM, INT and QUIT do to a process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from outbox.runtime.exits import ExitCode, end_now

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Signals:
    """The first one asks to stop, and a second one ends the process on the spot, with exit code 130.

    Handlers of Python's own, not of the event loop: those would not run while a job blocks the loop.

    A process that a job forks is no worker. It has Python's own handlers again: with these, ``terminate()`` of
    `multiprocessing` would ask a copy of the worker to stop, which nobody runs.
    """

    def __init__(self, on_first: Callable[[], object], on_second: Callable[[], object] | None = None) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._count = 0
        self._forking = threading.local()

    def install(self) -> None:
        """Once per process: what is to happen when it forks cannot be taken back."""
        for number in STOPPING:
            signal.signal(number, self._handle)
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._uninstall)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._on_first()
            return
        if self._on_second is not None:
            self._on_second()
        end_now(ExitCode.HARD_STOP)

    def _hold(self) -> None:
        """A child that gets a signal before it has its own handlers would forget it."""
        self._forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.blocked)

    def _uninstall(self) -> None:
        """In the child."""
        for number in STOPPING:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        # The parent's event loop would hear of the child's signals and take them for its own.
        signal.set_wakeup_fd(-1)
        self._let_go()
