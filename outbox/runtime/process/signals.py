"""What signals do to a worker and to its supervisor.

========================== ==========================================================================================
TERM, INT, QUIT, HUP, XCPU the first asks to stop, the second ends the process on the spot
USR2, CONT                 claim nothing more; claim again (as in Laravel's worker)
USR1, ALRM, and others     reported; without this, each of them would end the process and its jobs
========================== ==========================================================================================

HUP that was ignored when the process started (``nohup``) stays ignored.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from outbox import clock
from outbox.runtime.process.exit_codes import ExitCode, end_now

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGXCPU)

_NAMED = {"SIGUSR1", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT"}
_HARMLESS = (
    *(number for number in signal.Signals if number.name in _NAMED),
    *range(getattr(signal, "SIGRTMIN", 1), getattr(signal, "SIGRTMAX", 0) + 1),
)
"""What ends a process that has no handler for it."""

_ENDING = tuple(number for number in signal.Signals if number.name in _NAMED | {"SIGPIPE", "SIGXFSZ"})
"""Signals that no job may give their default, which ends the process. Python ignores the last two when it starts."""

GUARDED = (*STOPPING, signal.SIGUSR2, signal.SIGCONT)
"""Signals whose handlers are the worker's own, whatever an application or a job installs."""

_TICK, _FROZEN_AFTER = 0.2, 1.0

Handler = Callable[[int, FrameType | None], None]


def _nothing(*_: object) -> None:
    """Until the worker says what is to happen."""


class Signals:
    """Handlers of Python's own, not of the event loop: those would not run while a job blocks the loop.

    Each callback runs in the main thread, between two bytecodes of whatever runs there. Before ``on_stop`` is set, a
    signal that stops ends the process at once with ``start_code``: nothing has been claimed.

    A process that a job forks is no worker. It has Python's own handlers again: with the worker's, ``terminate()`` of
    `multiprocessing` would ask a copy of the worker to stop, which no thread runs.
    """

    def __init__(self, start_code: int = ExitCode.OK) -> None:
        self.on_stop: Callable[[], object] | None = None
        self.on_second: Callable[[str], object] = _nothing
        """Given the name of the signal that ends the process."""
        self.on_pause: Callable[[], object] = _nothing
        self.on_resume: Callable[[], object] = _nothing
        self.on_harmless: Callable[[str, str], object] = _nothing
        """Given the name of a signal that changes nothing, and why."""
        self.paused = False
        self._start_code = start_code
        self._count = 0
        self._forking = threading.local()
        self._said: set[int] = set()
        self._freezer = _FreezeDetector()
        # One object each, so that a handler can be compared by identity.
        self._handlers: dict[int, Handler] = dict.fromkeys(STOPPING, self._handle_stop)
        self._handlers |= {signal.SIGUSR2: self._handle_pause, signal.SIGCONT: self._handle_resume}
        self._handlers |= dict.fromkeys(_HARMLESS, self._handle_harmless)

    def install(self) -> None:
        """Once per process: what is to happen when it forks cannot be taken back."""
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            del self._handlers[signal.SIGHUP]
        for number, handler in self._handlers.items():
            if number not in _HARMLESS or signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, handler)
        # A supervisor holds them back until there is a handler for them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._uninstall)

    def reinstall(self) -> list[str]:
        """Take back the guarded signals. Returns the names of those that had another handler, or were blocked.

        To be called in the main thread. A handler that the application installed for USR1, ALRM, … stays. Their default
        does not, which code restores that has used an alarm: the next one would end the process.
        """
        # `signal` makes enumerations of all numbers and handlers, which is most of the time of a look. This is for
        # every batch of jobs that end.
        guarded = [number for number in GUARDED if number in self._handlers]
        changed = [number for number in guarded if _signal.getsignal(number) is not self._handlers[number]]
        changed += [number for number in _ENDING if _signal.getsignal(number) == _signal.SIG_DFL]
        for number in changed:
            signal.signal(number, self._handlers.get(number, signal.SIG_IGN))
        blocked = _signal.pthread_sigmask(signal.SIG_UNBLOCK, guarded).intersection(guarded)
        return [signal_name(number) for number in sorted({*changed, *blocked})]

    def _handle_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.on_stop is None:
            end_now(self._start_code)
        self._count += 1
        if self._count == 1:
            self.on_stop()
            return
        self.on_second(signal.Signals(number).name)
        end_now(ExitCode.HARD_STOP)

    def _handle_pause(self, _number: int, _frame: FrameType | None) -> None:
        self.pause()

    def pause(self) -> None:
        """As USR2 does."""
        if not self.paused:
            self.paused = True
            self._freezer.start()
            self.on_pause()

    def _handle_resume(self, _number: int, _frame: FrameType | None) -> None:
        """The kernel sends CONT to every process that goes on after TSTP or STOP; that is no request to resume."""
        if not self.paused:
            return
        if self._freezer.was_frozen():
            self.on_harmless("SIGCONT", "the process goes on after a stop and stays paused; send CONT again to resume")
            return
        self.paused = False
        self._freezer.stop()
        self.on_resume()

    def _handle_harmless(self, number: int, _frame: FrameType | None) -> None:
        # Once: a timer that a job left behind may send it many times a second.
        if number not in self._said:
            self._said.add(number)
            self.on_harmless(signal_name(number), "it has no meaning here and changes nothing")

    def _hold(self) -> None:
        """A child that gets a signal before it has its own handlers would forget it."""
        self._forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.blocked)

    def _uninstall(self) -> None:
        """In the child."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        # The parent's event loop would hear of the child's signals and take them for its own.
        signal.set_wakeup_fd(-1)
        self._let_go()


@contextmanager
def woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have each signal wake the loop of the main thread.

    The kernel gives a signal to another thread while one is pending for the main thread. That does not interrupt the
    main thread's wait, and Python runs handlers in the main thread only: an idle loop would not hear of it.
    """
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)

    def empty() -> None:
        with suppress(BlockingIOError):
            os.read(reading, 4096)

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    loop.add_reader(reading, empty)
    try:
        yield
    finally:
        loop.remove_reader(reading)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def ignore_until_the_end() -> None:
    """Ignore what has no meaning: Python gives it back its default when it ends, and jobs leave timers behind."""
    for number in _HARMLESS:
        signal.signal(number, signal.SIG_IGN)


def signal_name(number: int) -> str:
    """``SIGTERM``; ``signal 40`` where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _FreezeDetector:
    """Tells whether the process was stopped a moment ago: then a thread that ticks has not ticked."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._ticked = 0.0
        self._frozen_until = float("-inf")

    def start(self) -> None:
        self._ended, self._ticked = threading.Event(), clock.now()
        # Not through `threading`, whose locks the code that the signal interrupted may hold.
        _thread.start_new_thread(self._tick, (self._ended,))

    def stop(self) -> None:
        self._ended.set()

    def was_frozen(self) -> bool:
        self._note()
        frozen = clock.now() - self._frozen_until < _FROZEN_AFTER
        self._frozen_until = float("-inf")
        return frozen

    def _note(self) -> None:
        """Whichever thread runs first after the stop."""
        before, self._ticked = self._ticked, clock.now()
        if self._ticked - before > _FROZEN_AFTER:
            self._frozen_until = self._ticked

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(_TICK):
            self._note()
